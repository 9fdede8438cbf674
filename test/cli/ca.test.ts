import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { loadTls } from '../../host/tls.ts';
import { oneDocument, Place, suite } from '../support/cli-place.ts';

const DAY_MS = 86_400_000;

function modeOf(path: string): number {
  return statSync(path).mode & 0o777;
}

async function withAuthority(): Promise<Place> {
  const place = new Place();
  const { code, stderr } = await place.run(['ca', 'init', '--to', 'ca']);
  assert.deepEqual([code, stderr], [0, '']);
  return place;
}

suite('ca init', () => {
  it('makes an authority whose key only its owner reads', async () => {
    const place = new Place();
    const outcome = await place.run(['ca', 'init', '--to', 'ca', '--days', '10', '--json']);
    assert.equal(outcome.code, 0, outcome.stderr);
    const { cert, key, expiresAt } = oneDocument(outcome);
    assert.deepEqual([cert, key], [place.path('ca/ca.crt'), place.path('ca/ca.key')]);
    assert.deepEqual([modeOf(String(cert)), modeOf(String(key))], [0o644, 0o600]);
    const certificate = new X509Certificate(readFileSync(String(cert)));
    assert.equal(certificate.ca, true);
    assert.equal(Date.parse(certificate.validTo), Date.parse(String(expiresAt)));
    assert.ok(Math.abs(Date.parse(String(expiresAt)) - Date.now() - 10 * DAY_MS) < DAY_MS);
  });

  it('does not replace a file', async () => {
    const place = await withAuthority();
    const before = readFileSync(place.path('ca/ca.key'));
    const { code } = await place.fails(['ca', 'init', '--to', 'ca'], 4);
    assert.equal(code, 'REFUSED');
    assert.deepEqual(readFileSync(place.path('ca/ca.key')), before);
  });
});

suite('ca issue', () => {
  it('makes a certificate of the authority for servers and clients', async () => {
    const place = await withAuthority();
    const hosts = ['--host', 'db.example.com', '--host', '10.0.0.5'];
    const to = ['--ca', 'ca', '--to', 'b'];
    const outcome = await place.run(['ca', 'issue', 'agent-b', ...to, ...hosts, '--json']);
    assert.equal(outcome.code, 0, outcome.stderr);
    const { name, cert, key } = oneDocument(outcome);
    assert.equal(name, 'agent-b');
    assert.deepEqual([modeOf(String(cert)), modeOf(String(key))], [0o644, 0o600]);
    const authority = new X509Certificate(readFileSync(place.path('ca/ca.crt')));
    const certificate = new X509Certificate(readFileSync(String(cert)));
    assert.equal(certificate.verify(authority.publicKey), true);
    assert.equal(certificate.checkIssued(authority), true);
    assert.equal(certificate.subject, 'CN=agent-b');
    assert.equal(certificate.subjectAltName, 'DNS:db.example.com, IP Address:10.0.0.5, DNS:agent-b');
    assert.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    const { name: loaded } = await loadTls({
      cert: String(cert),
      key: String(key),
      ca: place.path('ca/ca.crt'),
    });
    assert.equal(loaded, 'agent-b');
  });

  it('names this machine by itself, and prints the settings', async () => {
    const place = await withAuthority();
    const { stdout } = await place.run(['ca', 'issue', 'a', '--ca', 'ca', '--to', 'a']);
    const folder = place.root;
    assert.ok(
      stdout.includes(`tls: {cert: ${folder}/a/a.crt, key: ${folder}/a/a.key, ca: ${folder}/ca/ca.crt}`),
    );
    const certificate = new X509Certificate(readFileSync(place.path('a/a.crt')));
    assert.match(
      certificate.subjectAltName ?? '',
      /DNS:localhost, IP Address:127\.0\.0\.1, IP Address:0:.*:1/,
    );
  });

  it('ends with the authority at the latest', async () => {
    const place = new Place();
    await place.run(['ca', 'init', '--days', '10']);
    const { expiresAt } = oneDocument(await place.run(['ca', 'issue', 'a', '--days', '400', '--json']));
    const authority = new X509Certificate(readFileSync(place.path('ca.crt')));
    assert.equal(Date.parse(String(expiresAt)), Date.parse(authority.validTo));
  });

  it('replaces the files of a name only when asked to', async () => {
    const place = await withAuthority();
    const issue = ['ca', 'issue', 'a', '--ca', 'ca'];
    assert.equal((await place.run(issue)).code, 0);
    const before = readFileSync(place.path('a.crt'));
    await place.fails(issue, 4);
    assert.deepEqual(readFileSync(place.path('a.crt')), before);
    assert.equal((await place.run([...issue, '--replace'])).code, 0);
    assert.notDeepEqual(readFileSync(place.path('a.crt')), before);
    assert.deepEqual([modeOf(place.path('a.crt')), modeOf(place.path('a.key'))], [0o644, 0o600]);
    assert.deepEqual(
      readdirSync(place.root).filter((name) => name.startsWith('.new')),
      [],
    );
  });

  it('refuses wrong names, hosts and days, and writes nothing', async () => {
    const place = await withAuthority();
    const issue = ['ca', 'issue'];
    const rest = ['--ca', 'ca', '--to', 'none'];
    for (const name of ['../a', 'a/b', '', 'a,CN=b', '.a', 'x'.repeat(65), 'a b', 'ca', 'é'])
      await place.fails([...issue, name, ...rest], 2);
    for (const host of ['a b', 'http://a', 'a:1', '', '-a', '10.0.0.1/8', 'x'.repeat(254)])
      await place.fails([...issue, 'a', ...rest, `--host=${host}`], 2);
    for (const days of ['0', '-1', 'many', '1.5', '36501'])
      await place.fails([...issue, 'a', ...rest, `--days=${days}`], 2);
    assert.equal(existsSync(place.path('none')), false);
  });

  it('refuses an authority that is absent, or whose key is of another', async () => {
    const place = await withAuthority();
    await place.fails(['ca', 'issue', 'a', '--ca', 'nowhere'], 1);
    await place.run(['ca', 'init', '--to', 'other']);
    writeFileSync(place.path('ca/ca.key'), readFileSync(place.path('other/ca.key')));
    const { message } = await place.fails(['ca', 'issue', 'a', '--ca', 'ca'], 2);
    assert.match(String(message), /does not belong/);
    writeFileSync(place.path('ca/ca.key'), 'x');
    await place.fails(['ca', 'issue', 'a', '--ca', 'ca'], 2);
  });

  it('is not run by ca alone', async () => {
    await new Place().fails(['ca'], 2);
  });
});
