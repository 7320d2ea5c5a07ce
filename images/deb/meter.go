package deb

import (
	"io"
	"sync"
)

// meter adds up what several transfers bring. It is safe for concurrent use.
type meter struct {
	mu          sync.Mutex
	done, total int64
	report      func(done, total int64)
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done += n; m.report != nil {
		m.report(m.done, m.total)
	}
}

// transfer is what one file has brought so far.
type transfer struct {
	*meter
	got int64
	io.ReadCloser
}

// begin counts what is read from r. What an earlier try has brought counts no more.
func (t *transfer) begin(r io.ReadCloser) io.ReadCloser {
	t.add(-t.got)
	t.got, t.ReadCloser = 0, r
	return t
}

func (t *transfer) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.got += int64(n)
	t.add(int64(n))
	return n, err
}

// finish counts the whole file, which may have been there before.
func (t *transfer) finish(size int64) { t.add(size - t.got) }
