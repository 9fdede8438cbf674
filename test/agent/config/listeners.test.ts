import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readSettings } from '../../../agent/config/read.ts';

async function read(yaml: string, env: Record<string, string> = {}) {
  return await readSettings(
    { file: 'c.yaml', env, flags: { '--dir': '/d' } },
    {
      cwd: '/etc',
      state: '/state',
      hostName: 'machine-a',
      readText: () => yaml,
      realPath: (path) => path,
    },
  );
}

const TLS = 'tls: {cert: a.crt, key: a.key, ca: /ca.crt}';

describe('the settings of a listener', () => {
  const secured: readonly [name: string, yaml: string, http: boolean, grpc: boolean][] = [
    ['are plaintext by default', '', false, false],
    ['with TLS secure gRPC everywhere, HTTP off loopback', TLS, false, true],
    ['with TLS secure HTTP off loopback', `${TLS}\nhttp: 0.0.0.0:9701`, true, true],
    ['leave a listener plaintext that is named', `${TLS}\nhttp: 0.0.0.0:1\ninsecure: [http]`, false, true],
    ['leave gRPC plaintext where it is named', `${TLS}\ninsecure: [grpc]`, false, false],
    ['allow plaintext off loopback by name', 'grpc: "[::]:1"\ninsecure: [grpc]', false, false],
  ];
  for (const [name, yaml, http, grpc] of secured) {
    it(name, async () => {
      const { settings, problems } = await read(yaml);
      assert.deepEqual(problems, []);
      assert.deepEqual([settings?.http.secure, settings?.grpc.secure], [http, grpc]);
    });
  }

  const refused: readonly [name: string, yaml: string, problem: RegExp][] = [
    [
      'off loopback without TLS',
      'grpc: 0.0.0.0:9702',
      /grpc: cannot listen on "0\.0\.0\.0:9702" without TLS/,
    ],
    ['off loopback on IPv6', 'grpc: "[::]:9702"', /"\[::\]:9702" without TLS/],
    ['where only the other one may be plaintext', 'grpc: 0.0.0.0:1\ninsecure: [http]', /grpc: .*without TLS/],
    ['by a name that only begins like loopback', 'http: 127.evil.example:1', /http: .*without TLS/],
    ['without a key', 'tls: {cert: a, ca: c}', /tls: there is no key/],
    ['without anything but a key', 'tls: {key: a}', /tls: there is no cert and no ca/],
    ['with an unknown listener', 'insecure: [ftp]', /insecure\[0\]: "ftp" is none of http, grpc/],
    ['with a port in a host', 'hosts: ["a:1"]', /hosts\[0\]: .*leave out the port/],
    ['with a URL as a host', 'hosts: ["http://a"]', /hosts\[0\]:/],
    ['with a name that is none', 'name: a b', /name: "a b" is no name/],
  ];
  for (const [name, yaml, problem] of refused) {
    it(`are refused ${name}`, async () => {
      const { problems, error } = await read(yaml);
      assert.equal(problems.length, 1, problems.join('\n'));
      assert.match(problems[0] ?? '', problem);
      assert.equal(error?.code, 'INVALID_ARGUMENT');
    });
  }

  it('name the mend where TLS is needed', async () => {
    const { error } = await read('http: 0.0.0.0:9701');
    assert.match(error?.hint ?? '', /tls: \{cert, key, ca\}.*127\.0\.0\.1.*insecure: \[http\]/);
  });

  it('begin relative paths at the file, and have variables', async () => {
    const { settings } = await read(`name: agent-a\n${TLS}\nhosts: [a.example, '*']`, {
      LIGHTKEEPER_TLS_CERT: '/other.crt',
      LIGHTKEEPER_GRPC: '127.0.0.1:5',
      LIGHTKEEPER_INSECURE: 'http',
    });
    assert.equal(settings?.name, 'agent-a');
    assert.deepEqual(settings?.tls, { cert: '/other.crt', key: '/etc/a.key', ca: '/ca.crt' });
    assert.deepEqual(settings?.hosts, ['a.example', '*']);
    assert.deepEqual(settings?.grpc, { host: '127.0.0.1', port: 5, fallback: false, secure: true });
  });
});
