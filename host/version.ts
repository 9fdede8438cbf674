declare const LIGHTKEEPER_VERSION: string | undefined;

/** Version of this program, set by the build. */
export const version: string = typeof LIGHTKEEPER_VERSION === 'string' ? LIGHTKEEPER_VERSION : '0.0.0-source';
