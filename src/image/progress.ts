/** What preparing an image reports while it goes on: plain data, so that it travels over the control socket. */

export type ProgressEvent =
  /** For a registry, to learn what the image is. */
  | { readonly type: 'waiting'; readonly reference: string }
  | {
      readonly type: 'resolved';
      readonly reference: string;
      readonly layers: number;
      /** Compressed bytes of all layers. */
      readonly bytes: number;
    }
  | {
      readonly type: 'layer';
      /** From 0, base first. */
      readonly layer: number;
      readonly diffId: string;
      /** "cached": known already, nothing to do. "lazy": known by its table of contents; its files come when they are read. */
      readonly state: 'cached' | 'indexing' | 'indexed' | 'lazy';
      /** Compressed bytes done, of `total`. */
      readonly done: number;
      readonly total: number;
    }
  | { readonly type: 'tree'; readonly state: 'cached' | 'merging' | 'merged' };

export type OnProgress = (event: ProgressEvent) => void;
