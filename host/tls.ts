import { X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { ioError, LightkeeperError, normalise } from '../core/errors.ts';
import { now } from './clock.ts';

/** Paths of a certificate, its private key, and the authority of the other ends, all in PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** Content of these files. */
export interface TlsMaterial {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer;
  /** Common name of the certificate; undefined if it has none, or several. */
  readonly name: string | undefined;
  /** Times from and until which the certificate is valid, in milliseconds since 1970. */
  readonly validFromMs: number;
  readonly expiresMs: number;
}

/** A certificate that may change while listeners and connections use it. */
export interface TlsSource {
  readonly current: TlsMaterial;
  /** Calls a listener after each change. Returns a function that ends this. */
  onChange(listener: (material: TlsMaterial) => void): () => void;
}

/** Returns a source of a certificate that does not change. */
export function fixedTls(material: TlsMaterial): TlsSource {
  return { current: material, onChange: () => () => {} };
}

/** What happened to watched files. */
export type TlsEvent =
  | { readonly kind: 'loaded'; readonly material: TlsMaterial }
  /** The changed files cannot be used; the material before them remains in use. */
  | { readonly kind: 'unusable'; readonly error: LightkeeperError };

/** A source of which the files are read again when they change. */
export interface WatchedTls extends TlsSource {
  /** Reads the files again if they have changed. */
  check(): Promise<void>;
  /** Ends the watch. */
  close(): void;
}

/** Time between two looks at the files, in milliseconds. */
const POLL_MS = 1000;

/** Reads the files, and again whenever one changes. Throws if they cannot be used at the start. */
export async function watchTls(
  files: TlsFiles,
  { onEvent, pollMs = POLL_MS }: { onEvent: (event: TlsEvent) => void; pollMs?: number },
): Promise<WatchedTls> {
  const watch = new TlsWatch(files, await loadTls(files), onEvent);
  await watch.check();
  const timer = setInterval(() => void watch.check(), pollMs);
  timer.unref();
  return Object.assign(watch, { close: () => clearInterval(timer) });
}

class TlsWatch implements TlsSource {
  readonly #files: TlsFiles;
  readonly #onEvent: (event: TlsEvent) => void;
  readonly #listeners = new Set<(material: TlsMaterial) => void>();
  #current: TlsMaterial;
  /** State of the files that was read last. */
  #seen = '';
  /** State of files that could not be used. */
  #unusable = { state: '', isReported: false };
  #checking: Promise<void> | undefined;

  constructor(files: TlsFiles, material: TlsMaterial, onEvent: (event: TlsEvent) => void) {
    this.#files = files;
    this.#current = material;
    this.#onEvent = onEvent;
  }

  get current(): TlsMaterial {
    return this.#current;
  }

  onChange(listener: (material: TlsMaterial) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  check(): Promise<void> {
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  async #check(): Promise<void> {
    const state = await stateOf(this.#files);
    if (state === this.#seen || (this.#unusable.isReported && state === this.#unusable.state)) return;
    try {
      const material = await loadTls(this.#files);
      if (isSame(material, this.#current)) {
        this.#seen = state;
        return;
      }
      if (material.expiresMs <= now() && this.#current.expiresMs > now()) throw expired(this.#files.cert);
      this.#seen = state;
      this.#current = material;
      for (const listener of this.#listeners) listener(material);
      this.#onEvent({ kind: 'loaded', material });
    } catch (error) {
      // Three files are not replaced at one instant: only what stays unusable is worth a word.
      const isReported = this.#unusable.state === state;
      this.#unusable = { state, isReported };
      if (isReported) this.#onEvent({ kind: 'unusable', error: normalise(error) });
    }
  }
}

/** Returns what shows that a file was replaced. */
async function stateOf({ cert, key, ca }: TlsFiles): Promise<string> {
  const states = [cert, key, ca].map(async (path) => {
    const found = await stat(path, { bigint: true }).catch(() => undefined);
    return found === undefined ? 'absent' : [found.ino, found.size, found.mtimeNs, found.ctimeNs].join();
  });
  return (await Promise.all(states)).join(' ');
}

function isSame(a: TlsMaterial, b: TlsMaterial): boolean {
  return a.cert.equals(b.cert) && a.key.equals(b.key) && a.ca.equals(b.ca);
}

function expired(path: string): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot use the certificate "${path}": it has expired`, {
    hint: 'issue another one, for instance with lightkeeper ca issue',
  });
}

/** Reads a certificate, its key and the authority, and checks that they can be used together. */
export async function loadTls(files: TlsFiles): Promise<TlsMaterial> {
  const [cert, key, ca] = await Promise.all([read(files.cert), read(files.key), read(files.ca)]);
  const certificate = parse(files.cert, cert);
  parse(files.ca, ca);
  try {
    createSecureContext({ cert, key, ca });
  } catch (error) {
    throw unusable(files.key, 'it is not the private key of the certificate', error);
  }
  const { CN } = certificate.toLegacyObject().subject as { CN?: unknown };
  const name = typeof CN === 'string' ? CN : undefined;
  const [validFromMs, expiresMs] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  return { cert, key, ca, name, validFromMs, expiresMs };
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw ioError('read', path, error);
  }
}

function parse(path: string, pem: Buffer): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw unusable(path, 'it is not a certificate in PEM', error);
  }
}

function unusable(path: string, state: string, cause: unknown): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${path}" for TLS: ${state}`, {
    hint: 'make the files with lightkeeper ca init and lightkeeper ca issue',
    cause,
  });
}
