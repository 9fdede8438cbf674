import assert from 'node:assert/strict';
import { hostname, networkInterfaces } from 'node:os';
import { describe, it } from 'node:test';
import { isAnswered } from '../../host/host-header.ts';

const ANY = '0.0.0.0';
const [own = '127.0.0.1'] = Object.values(networkInterfaces())
  .flatMap((some) => some ?? [])
  .filter(({ family }) => family === 'IPv4')
  .map(({ address }) => address);

describe('the Host header', () => {
  const cases: readonly [
    name: string,
    header: string | undefined,
    at: string,
    hosts: string[] | undefined,
    boolean,
  ][] = [
    ['of loopback is answered on loopback', 'localhost:9701', '127.0.0.1', undefined, true],
    ['of loopback is answered in brackets', '[::1]:1', '::1', undefined, true],
    ['of loopback is answered on every address', '127.0.0.1:9701', ANY, ['a.example'], true],
    ['of another host is refused on loopback', 'a.example', '127.0.0.1', ['a.example', '*'], false],
    ['that is absent is refused', undefined, ANY, undefined, false],
    ['of this machine is answered', `${hostname().toUpperCase()}:9701`, ANY, undefined, true],
    ['of an address of this machine is answered', `${own}:9701`, ANY, undefined, true],
    ['of another host is refused', 'evil.example', ANY, undefined, false],
    ['that is listed is answered', 'A.example.:443', ANY, ['a.example'], true],
    ['of this machine is refused where others are listed', hostname(), ANY, ['a.example'], false],
    ['that only ends like a listed one is refused', 'evil-a.example', ANY, ['a.example'], false],
    ['that only begins like a listed one is refused', 'a.example.evil', ANY, ['a.example'], false],
    ['of any kind is answered with *', 'evil.example', ANY, ['*'], true],
    ['of an IPv6 address that is listed is answered', '[2001:DB8::1]:1', '::', ['2001:db8::1'], true],
    ['with two ports is refused', 'a.example:1:2', ANY, ['a.example'], false],
  ];
  for (const [name, header, at, hosts, answered] of cases) {
    it(name, () => assert.equal(isAnswered(header, at, hosts), answered));
  }
});
