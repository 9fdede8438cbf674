import { chmod, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { ioError, LightkeeperError } from '../../core/errors.ts';
import type { IssuedCertificate } from '../../host/certificates.ts';
import { now } from '../../host/clock.ts';
import {
  createFile,
  effect,
  exists,
  makeDir,
  replaceFile,
  syncDir,
  syncFile,
  writeAt,
} from '../../host/disk.ts';
import { collectValue } from '../options.ts';
import { escapeControls, printLine } from '../print.ts';

const AUTHORITY_DAYS = 3650;
const CERTIFICATE_DAYS = 365;
/** Hosts of a certificate beside its name, unless others are given. */
const LOCAL_HOSTS = ['localhost', '127.0.0.1', '::1'];
const PUBLIC_MODE = 0o644;

/** Adds `ca init` and `ca issue`, which make certificates. */
export function addCa(program: Command): void {
  const ca = program.command('ca').description('make the certificates that agents use for TLS');
  ca.command('init')
    .description('make a certificate authority: ca.crt and ca.key')
    .option('--to <dir>', 'folder of the files', '.')
    .option('--days <n>', 'days until it expires', daysArgument, AUTHORITY_DAYS)
    .option('--json', 'print exactly one JSON document')
    .action(init);
  ca.command('issue')
    .description('issue a certificate for an agent: NAME.crt and NAME.key')
    .argument('<name>', 'name of the agent, which its peers know it by')
    .option('--ca <dir>', 'folder with ca.crt and ca.key', '.')
    .option('--to <dir>', 'folder of the files', '.')
    .option(
      '--host <host>',
      'host name or IP address that it is reached by (default: localhost, 127.0.0.1, ::1); may be given several times',
      collectValue,
    )
    .option('--days <n>', 'days until it expires', daysArgument, CERTIFICATE_DAYS)
    .option('--replace', 'replace the files of this name, which a running agent then reads again')
    .option('--json', 'print exactly one JSON document')
    .action(issue);
  ca.action(() => {
    throw new LightkeeperError('INVALID_ARGUMENT', 'Cannot run "ca" alone', {
      hint: 'run lightkeeper ca init or lightkeeper ca issue NAME',
    });
  });
}

const DAYS_MAX = 36_500;

function daysArgument(text: string): number {
  if (/^[0-9]{1,6}$/.test(text) && Number(text) >= 1 && Number(text) <= DAYS_MAX) return Number(text);
  throw new LightkeeperError('INVALID_ARGUMENT', `Cannot use "${text}" as a number of days`, {
    hint: `give a whole number from 1 to ${DAYS_MAX}`,
  });
}

interface InitOptions {
  readonly to: string;
  readonly days: number;
  readonly json?: boolean;
}

async function init({ to, days, json }: InitOptions): Promise<void> {
  const { createAuthority } = await import('../../host/certificates.ts');
  const files = pairIn(to, 'ca');
  await refuseExisting(files);
  const made = await createAuthority({ nowMs: now(), days });
  await writePair(files, made);
  if (json === true) return printMade(made, files);
  printLine(`made the certificate authority ${shown(files.cert)}, valid until ${day(made)}`);
  printLine(`its private key is ${shown(files.key)}: whoever has it can issue certificates`);
  printLine('next: lightkeeper ca issue NAME, for each agent');
}

interface IssueOptions extends InitOptions {
  readonly ca: string;
  readonly host?: readonly string[];
  readonly replace?: boolean;
}

async function issue(name: string, { ca, to, host, days, replace, json }: IssueOptions): Promise<void> {
  const { issueCertificate, checkCertificateHost, checkCertificateName } = await import(
    '../../host/certificates.ts'
  );
  checkCertificateName(name);
  if (name === 'ca') {
    throw new LightkeeperError(
      'INVALID_ARGUMENT',
      'Cannot issue a certificate for "ca": its files are the authority',
      {
        hint: 'use another name',
      },
    );
  }
  const hosts = [...new Set([...(host ?? LOCAL_HOSTS), name])];
  for (const one of hosts) checkCertificateHost(one);
  const files = pairIn(to, name);
  if (replace !== true) await refuseExisting(files);
  const authority = pairIn(ca, 'ca');
  const [cert, key] = await Promise.all([readPem(authority.cert), readPem(authority.key)]);
  const made = await issueCertificate({ cert, key }, { name, hosts, nowMs: now(), days });
  await writePair(files, made);
  if (json === true) return printMade(made, files);
  printLine(
    `made ${shown(files.cert)} and ${shown(files.key)} for ${made.hosts.join(', ')}, valid until ${day(made)}`,
  );
  printLine(
    `settings: tls: {cert: ${shown(files.cert)}, key: ${shown(files.key)}, ca: ${shown(authority.cert)}}`,
  );
}

interface PairFiles {
  readonly cert: string;
  readonly key: string;
}

function pairIn(folder: string, name: string): PairFiles {
  return { cert: join(resolve(folder), `${name}.crt`), key: join(resolve(folder), `${name}.key`) };
}

async function refuseExisting({ cert, key }: PairFiles): Promise<void> {
  for (const path of [cert, key]) {
    if (!(await exists(path))) continue;
    throw new LightkeeperError('REFUSED', `Cannot make "${path}": it exists`, {
      hint: 'name another folder with --to, or move the file away',
    });
  }
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw ioError('read', path, error);
  }
}

// The key comes first: an agent takes the pair when the certificate fits it.
/** Writes a pair, the key for its owner alone. */
async function writePair({ cert, key }: PairFiles, made: IssuedCertificate): Promise<void> {
  const folder = resolve(cert, '..');
  await makeDir('certificate', folder);
  for (const [path, pem] of [
    [key, made.key],
    [cert, made.cert],
  ] as const) {
    const bytes = Buffer.from(pem);
    if (await exists(path)) await replaceFile('certificate', path, bytes);
    else await writeNew(path, bytes);
    const isPublic = path === cert;
    if (isPublic) await effect({ label: 'certificate', op: 'other', path }, () => chmod(path, PUBLIC_MODE));
  }
  await syncDir('certificate', folder);
}

async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  const file = await createFile('certificate', path);
  try {
    await writeAt('certificate', path, file, bytes, 0);
    await syncFile('certificate', path, file);
  } finally {
    await file.close();
  }
}

function printMade({ name, hosts, expiresMs }: IssuedCertificate, { cert, key }: PairFiles): void {
  const expiresAt = new Date(expiresMs).toISOString();
  process.stdout.write(`${JSON.stringify({ name, hosts, cert, key, expiresAt }, null, 2)}\n`);
}

function shown(path: string): string {
  return escapeControls(path);
}

function day({ expiresMs }: IssuedCertificate): string {
  return new Date(expiresMs).toISOString().slice(0, 10);
}
