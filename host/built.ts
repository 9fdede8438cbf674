import { fileURLToPath } from 'node:url';

/** Returns the path of a file of the built program, also when this runs from the sources. */
export function builtFile(name: string): string {
  const here = new URL(import.meta.url);
  return fileURLToPath(new URL(here.pathname.endsWith('.ts') ? `../dist/${name}` : `./${name}`, here));
}
