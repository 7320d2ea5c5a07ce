package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// progress is how many bytes must have come since a transfer broke for its tries to
// count anew.
const progress = 1 << 20

// Resume opens the file at url. When its transfer breaks, reading goes on with what
// is missing (RFC 9110, section 14: range requests), or, with a server that cannot do
// that, from the start past what was read. Only bytes whose digest is known may be
// read so: the file may have changed in between.
func Resume(ctx context.Context, url string, wait time.Duration) (*File, error) {
	f, err := Open(ctx, url)
	if err != nil {
		return nil, err
	}
	whole := *f
	whole.ReadCloser = &resumer{ctx: ctx, url: url, wait: wait, etag: f.etag, size: f.Size, cur: f}
	return &whole, nil
}

type resumer struct {
	ctx        context.Context
	url, etag  string
	wait       time.Duration
	size       int64 // -1 if the server does not say
	off        int64 // bytes that were read
	cur        io.ReadCloser
	broken     int   // breaks since
	brokenFrom int64 // this offset
}

func (r *resumer) Read(p []byte) (int, error) {
	for {
		n, err := r.cur.Read(p)
		r.off += int64(n)
		if err == io.EOF && r.size >= 0 && r.off < r.size {
			err = io.ErrUnexpectedEOF
		}
		if n > 0 || err == nil || err == io.EOF {
			if err != io.EOF {
				err = nil // met again by the next read, if it lasts
			}
			return n, err
		}
		if err := r.again(err); err != nil {
			return 0, err
		}
	}
}

// again opens what is missing, or returns why that cannot be.
func (r *resumer) again(why error) error {
	for {
		if r.off >= r.brokenFrom+progress {
			r.broken, r.brokenFrom = 0, r.off
		}
		if r.broken++; r.broken >= Tries || r.ctx.Err() != nil || Final(why) {
			return fmt.Errorf("%s: the transfer broke after %d bytes: %w", r.url, r.off, why)
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-time.After(time.Duration(r.broken) * r.wait):
		}
		if why = r.reopen(); why == nil {
			return nil
		}
	}
}

func (r *resumer) reopen() error {
	_ = r.cur.Close()
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-", r.off)}}
	if r.etag != "" && !strings.HasPrefix(r.etag, "W/") {
		h.Set("If-Range", r.etag) // another file comes from its start then
	}
	f, err := open(r.ctx, r.url, h)
	if err != nil {
		return err
	}
	r.cur = f
	if f.code == http.StatusPartialContent {
		return nil
	}
	_, err = io.CopyN(io.Discard, f, r.off)
	return err
}

func (r *resumer) Close() error { return r.cur.Close() }
