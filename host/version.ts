declare const LIGHTKEEPER_VERSION: string | undefined;

/** The version of this program; the build puts it in. */
export const version: string = typeof LIGHTKEEPER_VERSION === 'string' ? LIGHTKEEPER_VERSION : '0.0.0-source';
