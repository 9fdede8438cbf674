import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type CertificatePair, createAuthority, issueCertificate } from '../../host/certificates.ts';
import type { TlsFiles } from '../../host/tls.ts';

// A hook that is made inside another one would run at the end of that.
const own = mkdtempSync(join(tmpdir(), 'lightkeeper-certificates-'));
after(() => rmSync(own, { recursive: true, force: true }));

/** A certificate authority in a folder of its own, which issues certificates for tests. */
export class Authority {
  readonly folder: string;
  readonly #pair: CertificatePair;

  constructor(pair: CertificatePair) {
    this.#pair = pair;
    this.folder = mkdtempSync(join(own, 'ca-'));
    writeFileSync(this.ca, pair.cert);
  }

  get ca(): string {
    return join(this.folder, 'ca.crt');
  }

  /** Issues a certificate; the files of a name are replaced. `seconds` is how long it is valid from now. */
  async issue(
    name: string,
    { seconds = 3600, hosts = ['localhost', '127.0.0.1', '::1'] } = {},
  ): Promise<TlsFiles> {
    const validity = { nowMs: Date.now(), days: seconds / 86_400 };
    const { cert, key } = await issueCertificate(this.#pair, { name, hosts, ...validity });
    const files = {
      cert: join(this.folder, `${name}.crt`),
      key: join(this.folder, `${name}.key`),
      ca: this.ca,
    };
    writeFileSync(files.key, key);
    writeFileSync(files.cert, cert);
    return files;
  }
}

/** Makes a certificate authority for tests. */
export async function newAuthority(): Promise<Authority> {
  return new Authority(await createAuthority({ nowMs: Date.now(), days: 10 }));
}
