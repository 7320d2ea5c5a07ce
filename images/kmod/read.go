package kmod

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"github.com/kiln-os/kiln/images/tree"
)

// maxModule is the size above which a file is not believed to be a module: the
// largest drivers have tens of MiB, and a few bytes of xz can stand for any number
// of zeros.
const maxModule = 256 << 20

// readModules fills in the objects of the modules. Decompressing takes nearly all
// of the time, so there is one reader for each processor; each holds one module at
// a time, which bounds the memory.
func readModules(ctx context.Context, t *tree.Tree, dir string, modules []*module) error {
	errs := make([]error, len(modules))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(modules)) {
		wg.Go(func() {
			var r reader
			defer r.close()
			for i := range work {
				p := dir + "/" + modules[i].path
				if modules[i].object, errs[i] = r.module(t, p); errs[i] != nil {
					errs[i] = fmt.Errorf("module /%s: %w", p, errs[i])
				}
			}
		})
	}
	for i := range modules {
		if ctx.Err() != nil {
			break
		}
		work <- i
	}
	close(work)
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// reader reads modules one after the other, in the same memory.
type reader struct {
	buf  bytes.Buffer
	xz   *xz.Reader
	zstd *zstd.Decoder
}

func (r *reader) close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

// module reads the module at p, following links.
func (r *reader) module(t *tree.Tree, p string) (object, error) {
	_, e, err := t.Lookup(p)
	if err != nil {
		return object{}, err
	}
	f, err := e.Content.Open()
	if err != nil {
		return object{}, err
	}
	defer f.Close()
	b, err := r.decompress(f, path.Ext(p))
	if err != nil {
		return object{}, err
	}
	return parseObject(b)
}

// decompress returns the bytes of a file, which are valid until the next call. ext
// is the last extension of the file's name.
func (r *reader) decompress(f io.Reader, ext string) ([]byte, error) {
	in, err := r.open(f, ext)
	if err == nil {
		r.buf.Reset()
		_, err = r.buf.ReadFrom(io.LimitReader(in, maxModule+1))
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ext, err)
	}
	if r.buf.Len() > maxModule {
		return nil, fmt.Errorf("larger than %d MiB: no kernel module is", maxModule>>20)
	}
	return r.buf.Bytes(), nil
}

// open returns a reader of what f has when it is decompressed.
func (r *reader) open(f io.Reader, ext string) (io.Reader, error) {
	var err error
	switch ext {
	case ".gz":
		return gzip.NewReader(f)
	case ".xz":
		if r.xz != nil {
			return r.xz, r.xz.Reset(f)
		}
		r.xz, err = xz.NewReader(f, xz.DefaultDictMax)
		return r.xz, err
	case ".zst":
		if r.zstd != nil {
			return r.zstd, r.zstd.Reset(f)
		}
		r.zstd, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		return r.zstd, err
	}
	return f, nil
}
