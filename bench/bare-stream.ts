// Sends bytes over one grpc-js stream with pass-through serializers: `bare-stream.ts PORT BYTES` serves one call.
import { type MethodDefinition, Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';

const MESSAGE_BYTES = 1 << 20;
const same = (bytes: Buffer): Buffer => bytes;

/** A call whose reply is a stream of messages of 1 MiB, taken as they are. */
export const BARE: MethodDefinition<Buffer, Buffer> = {
  path: '/bench.Bare/Read',
  requestStream: false,
  responseStream: true,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
};

/** Sends so many bytes, at the rate at which they are read. */
async function send(call: ServerWritableStream<Buffer, Buffer>, bytes: number): Promise<void> {
  const message = Buffer.alloc(MESSAGE_BYTES, 'x');
  for (let sent = 0; sent < bytes; sent += MESSAGE_BYTES)
    if (!call.write(message)) await new Promise((resolve) => call.once('drain', resolve));
  call.end();
}

const [port, bytes = 0] = process.argv.slice(2).map(Number);
// The bench imports the call.
if (process.argv[1] === import.meta.filename) {
  const server = new Server({ 'grpc.max_send_message_length': -1 });
  server.addService(
    { read: BARE },
    { read: (call: ServerWritableStream<Buffer, Buffer>) => void send(call, bytes) },
  );
  server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) => {
    if (error !== null) throw error;
    process.stdout.write('serving\n');
  });
}
