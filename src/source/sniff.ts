/** References as users write them, where a path without a prefix may stand: its kind is found by looking at it. */
import { resolve } from 'node:path';
import { LaminaError, toLaminaError } from '../errors.js';
import { Archive } from './archive.js';
import { DirectoryFiles, isDirectory } from './files.js';
import {
  fileReference,
  parseFullSyntax,
  parseSyntax,
  type FileKind,
  type PathReference,
  type Reference,
} from './reference.js';

/** Throws what {@link parseSyntax} and {@link sniffed} throw. */
export function parseReference(text: string, cwd: string): Reference {
  return sniffed(parseSyntax(text, cwd), text, cwd);
}

/** Throws what {@link parseFullSyntax} and {@link sniffed} throw. */
export function parseFullReference(text: string): Reference {
  return sniffed(parseFullSyntax(text), text, '/');
}

/** Throws NOT_AN_IMAGE, REFERENCE_INVALID and what {@link Archive.open} and {@link DirectoryFiles.find} throw. */
export function sniffed(reference: Reference | PathReference, text: string, cwd: string): Reference {
  if (reference.kind !== 'path') return reference;
  return fileReference(sniff(resolve(cwd, reference.path), text), reference, text, cwd);
}

/** What is at `path`. Throws NOT_AN_IMAGE and what {@link Archive.open} and {@link DirectoryFiles.find} throw. */
function sniff(path: string, text: string): FileKind {
  try {
    if (isDirectory(path)) return sniffDirectory(new DirectoryFiles(path));
    // Image archives of appc "MUST be named with the suffix .aci, irrespective of compression".
    return path.endsWith('.aci') ? 'aci' : sniffArchive(Archive.open(path));
  } catch (e) {
    const { code, message, hint, details } = toLaminaError(e);
    throw new LaminaError(code, `Cannot open ${text}: ${message}`, { hint, details, cause: e });
  }
}

function sniffDirectory(files: DirectoryFiles): FileKind {
  if (files.find('oci-layout') !== undefined || files.find('index.json') !== undefined) return 'oci';
  const { path } = files;
  throw new LaminaError('NOT_AN_IMAGE', `${path} is a directory, but no image layout (it has no oci-layout)`, {
    hint: 'Give the directory that has oci-layout, index.json and blobs in it.',
    details: { path },
  });
}

function sniffArchive(archive: Archive): FileKind {
  if (archive.has('oci-layout') || archive.has('index.json')) return 'oci-archive';
  if (archive.has('manifest.json')) return 'docker-archive';
  if (archive.has('manifest')) return 'aci';
  const { path } = archive;
  throw new LaminaError('NOT_AN_IMAGE', `${path} is a tar, but not of an image`, {
    hint: 'An image archive has an index.json (OCI), a manifest.json (docker save) or a manifest (appc).',
    details: { path },
  });
}
