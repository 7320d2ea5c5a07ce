package phase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// journal notes which phases ran, and fails or hangs where it is told to.
type journal struct {
	ran  []string
	fail map[string]int // remaining failures by phase; -1 fails for ever
}

func (j *journal) phases(bound time.Duration, names ...string) []Phase {
	var out []Phase
	for _, n := range names {
		out = append(out, Phase{Name: n, Summary: "doing " + n, Bound: bound, Once: n == "check", Run: func(context.Context, Report) error {
			j.ran = append(j.ran, n)
			if left := j.fail[n]; left != 0 {
				j.fail[n]--
				return fmt.Errorf("%s is not there yet", n)
			}
			return nil
		}})
	}
	return out
}

var names = []string{"check", "write", "start", "wait"}

func runner(t *testing.T, dir string, phases []Phase) (Runner, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return Runner{
		Phases: phases, RecordPath: filepath.Join(dir, "state", "firstboot.json"), PlanDigest: "plan-1", BootID: "boot-1",
		Out: NewPrinter(&out), Backoff: time.Millisecond,
	}, &out
}

// TestResume fails at each phase in turn and checks that the next run starts there.
func TestResume(t *testing.T) {
	for i, failing := range names {
		t.Run(failing, func(t *testing.T) {
			j := &journal{fail: map[string]int{failing: 1}}
			r, _ := runner(t, t.TempDir(), j.phases(0, names...))
			err := r.Run(context.Background())
			if err == nil || !strings.Contains(err.Error(), "phase "+failing) {
				t.Fatalf("error %v does not name phase %s", err, failing)
			}
			rec, err := Load(r.RecordPath)
			if err != nil || rec.State != StateFailed || !strings.Contains(rec.LastError, failing) {
				t.Fatalf("record %+v, %v", rec, err)
			}
			if !reflect.DeepEqual(j.ran, names[:i+1]) {
				t.Errorf("first run did %v", j.ran)
			}

			j.ran = nil
			r.BootID = "boot-2"
			if err := r.Run(context.Background()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(j.ran, names[i:]) {
				t.Errorf("second run did %v, want %v", j.ran, names[i:])
			}
			rec, err = Load(r.RecordPath)
			if err != nil || rec.State != StateComplete || rec.Boots != 2 || rec.Finished == nil || rec.LastError != "" {
				t.Errorf("record %+v, %v", rec, err)
			}
			if p := rec.Phase(failing); p.Attempts != 2 || !p.Done || p.LastError == "" {
				t.Errorf("phase %+v", p)
			}
		})
	}
}

func TestCompleteIsNoOp(t *testing.T) {
	j := &journal{}
	r, out := runner(t, t.TempDir(), j.phases(0, names...))
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(r.RecordPath)
	if err != nil {
		t.Fatal(err)
	}
	j.ran = nil
	out.Reset()
	r.PlanDigest, r.BootID = "plan-2", "boot-2"
	start := time.Now()
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 100*time.Millisecond {
		t.Errorf("took %s", took)
	}
	after, _ := os.ReadFile(r.RecordPath)
	if len(j.ran) != 0 || out.Len() != 0 || !bytes.Equal(before, after) {
		t.Errorf("a complete record led to phases %v, output %q", j.ran, out)
	}
}

func TestRetryWithinBound(t *testing.T) {
	j := &journal{fail: map[string]int{"start": 3}}
	r, out := runner(t, t.TempDir(), j.phases(10*time.Second, names...))
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	rec, err := Load(r.RecordPath)
	if err != nil {
		t.Fatal(err)
	}
	if p := rec.Phase("start"); p.Attempts != 4 {
		t.Errorf("attempts %d", p.Attempts)
	}
	for _, want := range []string{"[ 3/4] start: doing start\n", "[ 3/4] start: warning: start is not there yet; trying again in 2ms, for 10s more\n", "[ 3/4] start: done in 0.0s\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output has no %q:\n%s", want, out)
		}
	}
}

func TestBoundEnds(t *testing.T) {
	j := &journal{fail: map[string]int{"start": -1}}
	r, _ := runner(t, t.TempDir(), j.phases(20*time.Millisecond, names...))
	if err := r.Run(context.Background()); err == nil || IsPermanent(err) {
		t.Fatalf("error %v", err)
	}
	if n := len(j.ran); n < 3 || n > 20 {
		t.Errorf("%d phases ran: %v", n, j.ran)
	}
}

func TestPermanentIsNotRetried(t *testing.T) {
	attempts := 0
	boom := errors.New("boom")
	r, _ := runner(t, t.TempDir(), []Phase{{Name: "a", Bound: time.Hour, Run: func(context.Context, Report) error {
		attempts++
		return Permanent(boom)
	}}})
	err := r.Run(context.Background())
	if !errors.Is(err, boom) || !IsPermanent(err) || attempts != 1 {
		t.Errorf("error %v after %d attempts", err, attempts)
	}
}

func TestInterruptionKeepsTheRecord(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	phases := []Phase{{Name: "a", Run: func(context.Context, Report) error { return nil }}, {Name: "b", Bound: time.Hour, Run: func(ctx context.Context, _ Report) error {
		cancel()
		return ctx.Err()
	}}}
	r, _ := runner(t, t.TempDir(), phases)
	if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	rec, err := Load(r.RecordPath)
	if err != nil || !rec.Phase("a").Done || rec.Phase("b").Done {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// TestOtherPlan: phases done for another plan are done again, except those that
// judge the untouched machine.
func TestOtherPlan(t *testing.T) {
	j := &journal{fail: map[string]int{"start": 1}}
	r, _ := runner(t, t.TempDir(), j.phases(0, names...))
	if err := r.Run(context.Background()); err == nil {
		t.Fatal("no error")
	}
	j.ran = nil
	r.PlanDigest = "plan-2"
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"write", "start", "wait"}; !reflect.DeepEqual(j.ran, want) {
		t.Errorf("ran %v, want %v", j.ran, want)
	}
}

// TestTornWrite: what a reset in the middle of a write leaves is a temporary file
// beside the record, which is not read.
func TestTornWrite(t *testing.T) {
	j := &journal{fail: map[string]int{"start": 1}}
	r, _ := runner(t, t.TempDir(), j.phases(0, names...))
	if err := r.Run(context.Background()); err == nil {
		t.Fatal("no error")
	}
	torn := filepath.Join(filepath.Dir(r.RecordPath), ".firstboot.json.tmp-123")
	if err := os.WriteFile(torn, []byte(`{"version":1,"sta`), 0o600); err != nil {
		t.Fatal(err)
	}
	j.ran = nil
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"start", "wait"}; !reflect.DeepEqual(j.ran, want) {
		t.Errorf("ran %v, want %v", j.ran, want)
	}
}

func TestDamagedRecordIsAnError(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":9,"state":"complete"}`, `{"version":1,"state":"fine"}`} {
		j := &journal{}
		r, _ := runner(t, t.TempDir(), j.phases(time.Hour, names...))
		if err := os.MkdirAll(filepath.Dir(r.RecordPath), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.RecordPath, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.Run(context.Background()); err == nil || len(j.ran) != 0 {
			t.Errorf("%q: error %v, ran %v", text, err, j.ran)
		}
	}
}

func TestWaitingIsNotRepeated(t *testing.T) {
	var out bytes.Buffer
	p := NewPrinter(&out)
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	refused, timeout := errors.New("connection refused"), errors.New("timeout")
	for i := range 21 { // 20 s, two polls a second
		err := refused
		if i == 8 {
			err = timeout
		}
		p.Waiting("the API server", now.Sub(time.Unix(0, 0)), 30*time.Minute, err)
		now = now.Add(500 * time.Millisecond)
		p.Waiting("the API server", now.Sub(time.Unix(0, 0)), 30*time.Minute, err)
		now = now.Add(500 * time.Millisecond)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		"waiting for the API server (0s of 30m): connection refused",
		"waiting for the API server (8s of 30m): timeout",
		"waiting for the API server (9s of 30m): connection refused",
		"waiting for the API server (19s of 30m): connection refused",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("lines:\n%s", out.String())
	}
}

func TestPoll(t *testing.T) {
	var out bytes.Buffer
	p := NewPrinter(&out)
	n := 0
	err := Poll(context.Background(), p, "the socket", time.Millisecond, time.Minute, func(context.Context) error {
		if n++; n < 4 {
			return errors.New("no such file")
		}
		return nil
	})
	if err != nil || n != 4 || !strings.Contains(out.String(), "waiting for the socket (0s of 1m): no such file") {
		t.Errorf("%v after %d tries, output %q", err, n, &out)
	}
	cause := errors.New("no such file")
	err = Poll(context.Background(), p, "the socket", time.Millisecond, 10*time.Millisecond, func(context.Context) error { return cause })
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "the socket") {
		t.Errorf("after the bound: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = Poll(ctx, p, "the socket", time.Millisecond, time.Minute, func(context.Context) error { return cause })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Poll(context.Background(), p, "x", time.Hour, time.Hour, func(context.Context) error { return Permanent(cause) }); !errors.Is(err, cause) {
		t.Errorf("permanent: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"state":"running","phases":[{"name":"certs","took":"1s"}]}`))
	f.Add([]byte(`{"version":1,"state":"complete","finished":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord("f", data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "r")
		if err := r.save(path); err != nil {
			return // years beyond 9999 parse but cannot be written
		}
		if _, err := Load(path); err != nil {
			t.Errorf("a saved record does not load: %v", err)
		}
	})
}

// TestWaitingIsRecorded: what a phase waits for stands in the record while it waits, is
// written again only if it is something else, and is gone when the phase is over.
func TestWaitingIsRecorded(t *testing.T) {
	var saved []string
	var path string
	phases := []Phase{{Name: "discovery", Run: func(_ context.Context, r Report) error {
		for range 100 {
			r.Waiting("the cluster", time.Second, time.Hour, errors.New("connection refused"))
		}
		r.Waiting("the cluster", time.Second, time.Hour, errors.New("timeout")) // another cause, at once: no news
		r.Waiting("its signature", time.Second, time.Hour, nil)
		rec, err := Load(path)
		if err != nil || rec.Phase("discovery").Waiting != "waiting for its signature" || rec.Role != "join-worker" {
			t.Errorf("record %+v, %v", rec, err)
		}
		return nil
	}}}
	r, _ := runner(t, t.TempDir(), phases)
	path, r.Role = r.RecordPath, "join-worker"
	r.Saved = func(rec Record) {
		if p := rec.Phase("discovery"); p != nil && p.Waiting != "" {
			saved = append(saved, p.Waiting)
		}
	}
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"waiting for the cluster: connection refused", "waiting for its signature"}; !reflect.DeepEqual(saved, want) {
		t.Errorf("saved %q, want %q", saved, want)
	}
	rec, err := Load(path)
	if err != nil || rec.Phase("discovery").Waiting != "" {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// TestLateReport: a goroutine that a phase left behind cannot write into the record.
func TestLateReport(t *testing.T) {
	late, done := make(chan struct{}), make(chan struct{})
	phases := []Phase{
		{Name: "a", Run: func(_ context.Context, r Report) error {
			go func() {
				defer close(done)
				<-late
				r.Waiting("something", 0, time.Hour, nil)
			}()
			return nil
		}},
		{Name: "b", Run: func(context.Context, Report) error { close(late); <-done; return nil }},
	}
	r, _ := runner(t, t.TempDir(), phases)
	if err := r.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if rec, err := Load(r.RecordPath); err != nil || rec.Phase("a").Waiting != "" {
		t.Errorf("record %+v, %v", rec, err)
	}
}
