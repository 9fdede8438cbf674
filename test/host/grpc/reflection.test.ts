import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create, createFileRegistry, fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createClient } from '@connectrpc/connect';
import { Health } from '../../../gen/grpc/health/v1/health_pb.ts';
import {
  ServerReflection,
  type ServerReflectionRequestSchema,
  type ServerReflectionResponse,
} from '../../../gen/grpc/reflection/v1/reflection_pb.ts';
import { ServerReflection as ServerReflectionAlpha } from '../../../gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { PeerService } from '../../../gen/lightkeeper/v1/peer_pb.ts';
import { healthService } from '../../../host/grpc/health.ts';
import { reflectionServices } from '../../../host/grpc/reflection.ts';
import { grpcService, serveGrpc } from '../../../host/grpc/server.ts';
import { dialGrpc } from '../../../host/grpc/transport.ts';
import { goTool } from '../../support/go-tool.ts';
import { runToEnd } from '../../support/program.ts';

const ADDRESS = { host: '127.0.0.1', port: 0, fallback: false };
const BUF = join(import.meta.dirname, '../../../node_modules/.bin/buf');
const SERVICES = [
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
  'lightkeeper.v1.PeerService',
];

async function served(t: TestContext): Promise<number> {
  const { signal } = new AbortController();
  const services = [
    healthService({ services: [], isServing: () => true, signal }),
    grpcService(PeerService, {} as never),
  ];
  const reflection = reflectionServices([Health, PeerService]);
  const { port, close } = await serveGrpc(ADDRESS, [...services, ...reflection]);
  t.after(() => close(0));
  return port;
}

type Request = MessageInitShape<typeof ServerReflectionRequestSchema>['messageRequest'];

async function asked(t: TestContext, ...requests: Request[]): Promise<ServerReflectionResponse[]> {
  const connection = dialGrpc(`http://127.0.0.1:${await served(t)}`);
  t.after(() => connection.close());
  async function* all() {
    for (const messageRequest of requests) yield { host: 'h', messageRequest };
  }
  const client = createClient(ServerReflection, connection);
  const responses: ServerReflectionResponse[] = [];
  for await (const response of client.serverReflectionInfo(all() as never)) responses.push(response);
  return responses;
}

/** Names of the files in a response. */
function filesOf({ messageResponse }: ServerReflectionResponse): string[] {
  assert.equal(messageResponse.case, 'fileDescriptorResponse');
  assert.ok(messageResponse.case === 'fileDescriptorResponse');
  return messageResponse.value.fileDescriptorProto.map(
    (bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name,
  );
}

describe('the reflection service', () => {
  it('lists the services, and repeats the request', async (t) => {
    const [response] = await asked(t, { case: 'listServices', value: '' });
    assert.ok(response?.messageResponse.case === 'listServicesResponse');
    assert.deepEqual(
      response.messageResponse.value.service.map(({ name }) => name),
      SERVICES,
    );
    assert.equal(response.validHost, 'h');
    assert.equal(response.originalRequest?.messageRequest.case, 'listServices');
  });

  it('describes a service with all that it imports', async (t) => {
    const [response] = await asked(t, { case: 'fileContainingSymbol', value: 'lightkeeper.v1.PeerService' });
    assert.ok(response?.messageResponse.case === 'fileDescriptorResponse');
    const file = response.messageResponse.value.fileDescriptorProto
      .map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes))
      .reverse();
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file }));
    assert.deepEqual(
      registry.getService('lightkeeper.v1.PeerService')?.methods.map(({ name }) => name),
      PeerService.methods.map(({ name }) => name),
    );
  });

  it('finds files by their names, and by methods, messages and enums in them', async (t) => {
    const peer = 'lightkeeper/v1/peer.proto';
    const responses = await asked(
      t,
      { case: 'fileByFilename', value: peer },
      { case: 'fileContainingSymbol', value: 'lightkeeper.v1.PeerService.Follow' },
      { case: 'fileContainingSymbol', value: 'lightkeeper.v1.Hello' },
      { case: 'fileContainingSymbol', value: 'lightkeeper.v1.Grade.Value' },
    );
    const [first, method, message, nested] = responses.map(filesOf);
    assert.equal(first?.[0], peer);
    // What the stream has sent is not repeated, but what was asked for.
    assert.deepEqual([method, message], [[peer], [peer]]);
    assert.deepEqual(nested, ['lightkeeper/v1/types.proto']);
  });

  it('has a code for what there is not', async (t) => {
    const responses = await asked(
      t,
      { case: 'fileByFilename', value: '/etc/passwd' },
      { case: 'fileContainingSymbol', value: 'x.Y' },
      { case: 'fileContainingSymbol', value: '__proto__' },
      { case: 'allExtensionNumbersOfType', value: 'x.Y' },
      { case: 'fileContainingExtension', value: { containingType: 'x.Y', extensionNumber: 1 } },
      { case: undefined },
    );
    assert.deepEqual(
      responses.map(({ messageResponse: { value } }) => (value as { errorCode: number }).errorCode),
      [5, 5, 5, 5, 5, 3],
    );
  });

  it('has the old version too', async (t) => {
    const connection = dialGrpc(`http://127.0.0.1:${await served(t)}`);
    t.after(() => connection.close());
    async function* one() {
      yield { messageRequest: { case: 'listServices' as const, value: '' } };
    }
    const client = createClient(ServerReflectionAlpha, connection);
    for await (const { messageResponse } of client.serverReflectionInfo(one())) {
      assert.ok(messageResponse.case === 'listServicesResponse');
      assert.deepEqual(
        messageResponse.value.service.map(({ name }) => name),
        SERVICES,
      );
    }
  });

  it('is understood by buf curl', async (t) => {
    const url = `http://127.0.0.1:${await served(t)}`;
    const curl = [BUF, 'curl', '--protocol', 'grpc', '--http2-prior-knowledge'];
    const list = await runToEnd([...curl, '--list-services', url], {});
    assert.equal(list.code, 0, list.stderr);
    assert.deepEqual(list.stdout.trim().split('\n').sort(), SERVICES);
    const check = await runToEnd([...curl, '-d', '{}', `${url}/grpc.health.v1.Health/Check`], {});
    assert.equal(check.code, 0, check.stderr);
    assert.deepEqual(JSON.parse(check.stdout), { status: 'SERVING' });
  });

  it('is understood by grpcurl', async (t) => {
    const grpcurl = await goTool('github.com/fullstorydev/grpcurl/cmd/grpcurl@latest');
    if (grpcurl === undefined) return t.skip('there is no Go');
    const address = `127.0.0.1:${await served(t)}`;
    const curl = [grpcurl, '-plaintext'];
    const list = await runToEnd([...curl, address, 'list'], {});
    assert.deepEqual(list.stdout.trim().split('\n').sort(), SERVICES, list.stderr);
    const described = await runToEnd([...curl, address, 'describe', 'lightkeeper.v1.PeerService'], {});
    assert.match(described.stdout, /rpc Follow \( stream .lightkeeper.v1.FollowRequest \)/, described.stderr);
    const check = await runToEnd([...curl, address, 'grpc.health.v1.Health/Check'], {});
    assert.deepEqual(JSON.parse(check.stdout), { status: 'SERVING' });
  });
});
