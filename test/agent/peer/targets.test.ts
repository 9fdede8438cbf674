import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { admitFollower } from '../../../agent/peer/targets.ts';
import { LightkeeperError } from '../../../core/errors.ts';

const target = (name: string, graphs: string[] = [], certificate = name) => ({
  name,
  certificate,
  graphs,
  bytesPerSecond: undefined,
  standby: true,
});
const call = (agent: string, graphId: string, certificateName?: string, address = '10.0.0.2:5000') => ({
  peer: { address, certificateName },
  agent,
  graphId,
});
const refused = (error: unknown) => error instanceof LightkeeperError && error.code === 'REFUSED';

describe('a caller that wants to follow', () => {
  it('is known by its certificate where there is one, and never by what it says', () => {
    const rules = { hasTls: true, targets: [target('b', ['main'], 'agent-b')] };
    assert.equal(admitFollower(rules, call('anything', 'main', 'agent-b')).name, 'b');
    assert.throws(() => admitFollower(rules, call('b', 'main', 'agent-c')), refused);
    assert.throws(() => admitFollower(rules, call('agent-b', 'main')), refused);
    assert.throws(() => admitFollower(rules, call('agent-b', 'main', undefined, '127.0.0.1:1')), refused);
  });

  it('sees the graphs of its target and their workspaces alone', () => {
    const rules = { hasTls: false, targets: [target('b', ['main']), target('c')] };
    for (const graphId of ['main', 'main.w'])
      assert.equal(admitFollower(rules, call('b', graphId)).name, 'b');
    for (const graphId of ['other', 'mainly', 'main-2'])
      assert.throws(() => admitFollower(rules, call('b', graphId)), refused);
    assert.equal(admitFollower(rules, call('c', 'other')).target?.name, 'c');
  });

  it('needs no target on loopback without TLS as long as none is configured', () => {
    const open = { hasTls: false, targets: [] };
    for (const address of ['127.0.0.1:1', '[::1]:1', '[::ffff:127.0.0.1]:9'])
      assert.equal(admitFollower(open, call('me', 'g', undefined, address)).target, undefined);
    for (const address of ['10.0.0.1:1', '[fe80::1]:1', '127.evil.com:1', ''])
      assert.throws(() => admitFollower(open, call('me', 'g', undefined, address)), refused, address);
    assert.throws(
      () => admitFollower({ hasTls: true, targets: [] }, call('me', 'g', 'me', '127.0.0.1:1')),
      refused,
    );
    assert.throws(() => admitFollower(open, call('', 'g', undefined, '127.0.0.1:1')), refused);
  });
});
