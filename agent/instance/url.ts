import { LightkeeperError } from '../../core/errors.ts';

/** Parses the URL of an instance. INVALID_ARGUMENT if it is not an HTTP URL or holds a password. */
// A password is not repeated in the error.
export function parseInstanceUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      `Cannot use "${text}" as the URL of the instance: it is not an HTTP URL`,
      { hint: 'write it like --instance-url http://127.0.0.1:9621' },
    );
  }
  if (url.username + url.password === '') return url;
  throw new LightkeeperError(
    'INVALID_ARGUMENT',
    `Cannot use the URL of the instance at ${url.host}: it holds a password`,
    { hint: 'leave it out, and name a file with the key with --api-key-file' },
  );
}
