package fetch

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var content = bytes.Repeat([]byte("0123456789"), 300_000) // 3 MB

// flaky serves content and breaks each answer after so many bytes.
type flaky struct {
	etag      string
	ranges    bool // it can do them
	breaks    []int
	requested []string
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requested = append(f.requested, r.Header.Get("Range")+r.Header.Get("If-Range"))
	from := 0
	if f.etag != "" {
		w.Header().Set("ETag", f.etag)
	}
	code := http.StatusOK
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && f.ranges {
		code = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
	} else {
		from = 0
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
	w.WriteHeader(code)
	end := len(content)
	if len(f.breaks) > 0 {
		end, f.breaks = min(from+f.breaks[0], end), f.breaks[1:]
	}
	_, _ = w.Write(content[from:end])
}

func read(t *testing.T, url string) ([]byte, error) {
	t.Helper()
	f, err := Resume(t.Context(), url, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Size != int64(len(content)) {
		t.Errorf("size %d", f.Size)
	}
	return io.ReadAll(f)
}

func TestResume(t *testing.T) {
	for name, c := range map[string]struct {
		server   *flaky
		requests int
		second   string
		words    string
	}{
		"whole":             {&flaky{}, 1, "", ""},
		"ranges":            {&flaky{ranges: true, etag: `"x"`, breaks: []int{1000, 500}}, 3, `bytes=1000-"x"`, ""},
		"weak validator":    {&flaky{ranges: true, etag: `W/"x"`, breaks: []int{1000}}, 2, "bytes=1000-", ""},
		"no ranges":         {&flaky{breaks: []int{1000, 2000}}, 3, "bytes=1000-", ""},
		"progress":          {&flaky{ranges: true, breaks: []int{1100_000, 1, 1100_000, 1}}, 5, "bytes=1100000-", ""},
		"breaks for ever":   {&flaky{ranges: true, breaks: []int{10, 10, 10, 10, 10}}, 3, "bytes=10-", "the transfer broke after 30 bytes"},
		"at the very start": {&flaky{ranges: true, breaks: []int{0, 0}}, 3, "bytes=0-", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.server)
			defer s.Close()
			b, err := read(t, s.URL)
			switch {
			case c.words == "" && (err != nil || !bytes.Equal(b, content)):
				t.Errorf("%d bytes, %v", len(b), err)
			case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
				t.Errorf("error %v", err)
			}
			if r := c.server.requested; len(r) != c.requests || len(r) > 1 && r[1] != c.second {
				t.Errorf("requests %q", r)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	code := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/loop" {
			http.Redirect(w, r, "/loop", http.StatusFound)
			return
		}
		w.WriteHeader(code)
	}))
	defer s.Close()
	for _, c := range []struct {
		code  int
		final bool
		words string
	}{
		{404, true, "no such file (404)"}, {410, true, "no such file"}, {403, true, "403 Forbidden"}, {206, true, "206"},
		{500, false, "500"}, {503, false, "503"}, {429, false, "429"}, {408, false, "408"},
	} {
		code = c.code
		_, err := Open(t.Context(), s.URL+"/file")
		if err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), s.URL+"/file") || Final(err) != c.final {
			t.Errorf("%d: %v, final %v", c.code, err, Final(err))
		}
	}
	if _, err := Open(t.Context(), s.URL+"/loop"); err == nil || !Final(err) || !strings.Contains(err.Error(), "more than 10 times") {
		t.Errorf("loop: %v", err)
	}
}

// A server may say that an archive is a compressed form of something else. The archive
// is what was asked for.
func TestBytesAreThoseOnTheServer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e := r.Header.Get("Accept-Encoding"); e != "" {
			t.Errorf("asked for %q", e)
		}
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "\x1f\x8bcompressed")
	}))
	defer s.Close()
	f, err := Open(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "\x1f\x8bcompressed" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestRetry(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		succeedsAt, calls int
		final             bool
	}{{1, 1, false}, {3, 3, false}, {9, 3, false}, {9, 1, true}} {
		calls := 0
		err := Retry(t.Context(), time.Millisecond, func(error) bool { return c.final }, func() error {
			if calls++; calls == c.succeedsAt {
				return nil
			}
			return boom
		})
		if calls != c.calls || (err == nil) != (c.succeedsAt <= c.calls) {
			t.Errorf("%+v: %d calls, %v", c, calls, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Retry(ctx, time.Hour, func(error) bool { return false }, func() error { cancel(); return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

// Certificate authorities come from SSL_CERT_FILE, proxies from HTTP_PROXY, and https
// is not left for http. Go reads the variables once, so other processes do.
func TestEnvironment(t *testing.T) {
	if url := os.Getenv("TEST_FETCH_URL"); url != "" {
		f, err := Open(t.Context(), url)
		if err == nil {
			_, err = io.Copy(os.Stdout, f)
		}
		fmt.Println("\nerror:", err)
		return
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") }))
	defer plain.Close()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain.URL, http.StatusFound)
			return
		}
		fmt.Fprint(w, "secure")
	}))
	defer s.Close()
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, pemOf(s), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "proxy for ", r.URL) }))
	defer proxy.Close()
	for _, c := range []struct{ env, url, want string }{
		{"SSL_CERT_FILE=" + ca, s.URL + "/", "secure"},
		{"SSL_CERT_FILE=" + os.DevNull, s.URL + "/", "certificate"},
		{"SSL_CERT_FILE=" + ca, s.URL + "/down", "redirects from https to http"},
		{"HTTP_PROXY=" + proxy.URL, "http://downloads.example.com/kubelet", "proxy for http://downloads.example.com/kubelet"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), "TEST_FETCH_URL="+c.url, "SSL_CERT_DIR="+os.DevNull, c.env)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s: %v\n%s", c.env, c.url, err, out)
		}
	}
}

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// TestSilentServer: a transfer that goes on without a byte ends, and says so.
func TestSilentServer(t *testing.T) {
	before := silence
	silence = 50 * time.Millisecond
	defer func() { silence = before }()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(done)
	f, err := Open(context.Background(), s.URL+"/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadAll(f); err == nil || !strings.Contains(err.Error(), "/file: nothing came from the server for 50ms") {
		t.Errorf("error %v", err)
	}
}
