// `npm run install-lightrag [-- VERSION…]`: installs real servers for tests and proofs, or says what is lacking.
import { CI_VERSION, installLightRag, lackingFor } from './install.ts';

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const [, , ...given] = process.argv;
for (const version of given.length > 0 ? given : [CI_VERSION]) {
  const lacking = await lackingFor(version);
  if (lacking === false) say(`LightRAG ${version}: ${(await installLightRag(version, say)).python}`);
  else say(`LightRAG ${version}: not installed: ${lacking}`);
}
