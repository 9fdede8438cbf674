declare const LIGHTKEEPER_VERSION: string | undefined;
declare const LIGHTKEEPER_COMMIT: string | undefined;

/** Version of this program. The build defines it. */
export const version: string = typeof LIGHTKEEPER_VERSION === 'string' ? LIGHTKEEPER_VERSION : '0.0.0-source';

/** Commit that this program was built from; empty if the build did not know it. */
export const commit: string = typeof LIGHTKEEPER_COMMIT === 'string' ? LIGHTKEEPER_COMMIT : '';
