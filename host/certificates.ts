// The polyfill must be there before the library is.
import 'reflect-metadata';
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';
import { LightkeeperError } from '../core/errors.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
// The clock of the other end may be behind.
/** Time before now from which a certificate is valid, in milliseconds. */
const BACKDATED_MS = 3_600_000;

/** A certificate and its private key, in PEM. */
export interface CertificatePair {
  readonly cert: string;
  readonly key: string;
}

/** A certificate that was made. */
export interface IssuedCertificate extends CertificatePair {
  readonly name: string;
  readonly hosts: readonly string[];
  readonly expiresMs: number;
}

/** When a certificate is valid. */
export interface Validity {
  readonly nowMs: number;
  /** Days from now; below 0 it has expired. */
  readonly days: number;
}

/** Makes a certificate authority of its own. */
export async function createAuthority(validity: Validity): Promise<IssuedCertificate> {
  const keys = await newKeys();
  // Two authorities of one name could not be told apart in a file with both.
  const name = `Lightkeeper CA ${randomBytes(4).toString('hex')}`;
  const { notBefore, notAfter } = period(validity);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: `CN=${name}`,
    notBefore,
    notAfter,
    signingAlgorithm: SIGNING,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { ...(await pemOf(certificate, keys)), name, hosts: [], expiresMs: notAfter.getTime() };
}

/** Issues a certificate for a name and its hosts, for servers and clients. It ends with the authority at the latest. */
export async function issueCertificate(
  authority: CertificatePair,
  { name, hosts, ...validity }: Validity & { readonly name: string; readonly hosts: readonly string[] },
): Promise<IssuedCertificate> {
  const ca = readAuthority(authority.cert);
  const signingKey = await readSigningKey(authority.key, ca);
  const keys = await newKeys();
  const { notBefore, notAfter } = period(validity);
  const end = new Date(Math.min(notAfter.getTime(), ca.notAfter.getTime()));
  const usages = x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyAgreement;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerialNumber(),
    subject: `CN=${name}`,
    issuer: ca.subject,
    notBefore,
    notAfter: end,
    signingAlgorithm: SIGNING,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(usages, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension(
        hosts.map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { ...(await pemOf(certificate, keys)), name, hosts, expiresMs: end.getTime() };
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/;
const HOST =
  /^(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
const HOST_MAX = 253;

/** Throws if a name cannot be the common name of a certificate. */
export function checkCertificateName(name: string): void {
  if (NAME.test(name)) return;
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot issue a certificate for "${name}": it is no name`, {
    hint: 'use 1 to 64 letters, digits, dots, underscores and hyphens, with a letter or digit at both ends',
  });
}

/** Throws if a text is neither a host name nor an IP address. */
export function checkCertificateHost(host: string): void {
  if (isIP(host) !== 0 || (host.length <= HOST_MAX && HOST.test(host))) return;
  throw new LightkeeperError(
    'INVALID_ARGUMENT',
    `Cannot issue a certificate for the host "${host}": it is neither a host name nor an IP address`,
    { hint: 'write it like --host db.example.com or --host 10.0.0.5' },
  );
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function newSerialNumber(): string {
  const bytes = randomBytes(16);
  // A serial number is positive.
  bytes.writeUInt8((bytes.readUInt8(0) & 0x7f) | 0x40, 0);
  return bytes.toString('hex');
}

function period({ nowMs, days }: Validity): { notBefore: Date; notAfter: Date } {
  // Certificates count in seconds.
  const end = Math.floor((nowMs + days * DAY_MS) / 1000) * 1000;
  return { notBefore: new Date(Math.min(nowMs, end) - BACKDATED_MS), notAfter: new Date(end) };
}

async function pemOf(
  certificate: x509.X509Certificate,
  { privateKey }: webcrypto.CryptoKeyPair,
): Promise<CertificatePair> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', privateKey));
  return {
    cert: `${certificate.toString('pem')}\n`,
    key: `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`,
  };
}

function readAuthority(pem: string): x509.X509Certificate {
  try {
    return new x509.X509Certificate(pem);
  } catch (error) {
    throw unusableAuthority('ca.crt is not a certificate', error);
  }
}

async function readSigningKey(pem: string, ca: x509.X509Certificate): Promise<webcrypto.CryptoKey> {
  try {
    const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' });
    const key = await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, true, ['sign']);
    const probe = randomBytes(32);
    const signature = await webcrypto.subtle.sign(SIGNING, key, probe);
    const verifying = await ca.publicKey.export(ALGORITHM, ['verify']);
    if (await webcrypto.subtle.verify(SIGNING, verifying, signature, probe)) return key;
  } catch (error) {
    throw unusableAuthority('ca.key is not an ECDSA P-256 key', error);
  }
  throw unusableAuthority('ca.key does not belong to ca.crt', undefined);
}

function unusableAuthority(state: string, cause: unknown): LightkeeperError {
  return new LightkeeperError('INVALID_ARGUMENT', `Cannot use the certificate authority: ${state}`, {
    hint: 'make another one with lightkeeper ca init',
    cause,
  });
}
