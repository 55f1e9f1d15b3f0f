/** What other threads ask of the fetch thread. Every thread has a port of its own to it. */
import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../../digest/index.js';
import type { SerializedError } from '../../errors.js';
import type { Descriptor } from '../../oci/descriptor.js';
import type { AppName } from '../registry/app-name.js';
import type { FetchedAci } from '../registry/ac-fetch.js';
import type { RegistryAccess } from './access.js';

/** A blob of a registry, and where the store keeps what has been fetched of it. */
export interface RemoteBlobSpec {
  /** In the store. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly digest: Digest;
  readonly access: RegistryAccess;
}

/** Bytes from `start` up to `end`. */
export interface WantedPart {
  readonly blob: RemoteBlobSpec;
  readonly start: number;
  readonly end: number;
}

/** How the hosts of appc names are asked. */
export type DiscoveryAccess = Pick<RegistryAccess, 'tlsVerify' | 'offline'>;

export type ToFetcher =
  /** Bytes from `start` to `end` shall be in the store. With `done`, its first number becomes 1, or 2 where that failed. */
  | {
      readonly op: 'want';
      readonly id: number;
      readonly blob: RemoteBlobSpec;
      readonly start: number;
      readonly end: number;
      /** For a reader of a mounted image: such parts make up its trace. */
      readonly mounted?: boolean | undefined;
      readonly done?: Int32Array | undefined;
    }
  /** All of it shall be, from the beginning on; asked for from the main thread, which may say `unstream` of the same id. */
  | { readonly op: 'stream'; readonly id: number; readonly blob: RemoteBlobSpec }
  | { readonly op: 'unstream'; readonly id: number }
  /** The same, when nobody waits for anything; then the whole of it is verified. It ends with `unstream`, too. */
  | { readonly op: 'complete'; readonly id: number; readonly blob: RemoteBlobSpec }
  /** For a reader of a mounted image, as `mounted` above: it was here already. Not answered. */
  | {
      readonly op: 'used';
      readonly blob: RemoteBlobSpec;
      readonly start: number;
      readonly end: number;
    }
  /** These will be wanted, the first soonest. Answered at once. */
  | { readonly op: 'prefetch'; readonly id: number; readonly parts: readonly WantedPart[] }
  /** How much was waited for of these blobs, by their paths in the store. */
  | { readonly op: 'needed'; readonly id: number; readonly paths: readonly string[] }
  /** What the store has there is wrong. */
  | {
      readonly op: 'discard';
      readonly id: number;
      readonly blob: RemoteBlobSpec;
      readonly start: number;
      readonly end: number;
      readonly done?: Int32Array | undefined;
    }
  /** What refers to a manifest. */
  | {
      readonly op: 'referrers';
      readonly id: number;
      readonly access: RegistryAccess;
      readonly subject: Digest;
    }
  | { readonly op: 'manifest'; readonly id: number; readonly access: RegistryAccess; readonly reference: string }
  /** How many bytes a blob has. */
  | { readonly op: 'size'; readonly id: number; readonly access: RegistryAccess; readonly digest: Digest }
  /** An appc image, by its name, into a file. */
  | {
      readonly op: 'aci';
      readonly id: number;
      readonly app: AppName;
      readonly access: DiscoveryAccess;
      readonly path: string;
      /** Bytes that it may have. */
      readonly limit: number;
    }
  | {
      readonly op: 'document';
      readonly id: number;
      readonly access: RegistryAccess;
      readonly digest: Digest;
      /** Bytes that it may have. */
      readonly limit: number;
      readonly what: string;
    };

/** Main thread only, beside the ports. */
export type ToFetchThread =
  | { readonly op: 'connect'; readonly port: MessagePort }
  /** Credentials that the user has typed, in the form of `encodeCredentials`. */
  | { readonly op: 'credentials'; readonly name: string; readonly value: Readonly<Record<string, string>> };

/** Typed credentials that are kept, those that were used last. */
export const TYPED_MAX = 1000;

export interface FromFetcher {
  readonly id: number;
  readonly error?: SerializedError | undefined;
  /** Of `needed`: bytes, in the order of the paths. */
  readonly needed?: readonly number[] | undefined;
  readonly referrers?: readonly Descriptor[] | undefined;
  /** Of `manifest` and `document`. */
  readonly bytes?: Uint8Array | undefined;
  readonly mediaType?: string | undefined;
  readonly digest?: Digest | undefined;
  /** Of `aci`. */
  readonly aci?: FetchedAci | undefined;
  /** Of `size`. */
  readonly size?: number | undefined;
}

/** Values of `done`. */
export const DONE = 1;
export const FAILED = 2;
