package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/payload"
)

func TestWrongClockIsRefused(t *testing.T) {
	released, err := payload.Released()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if err := checkClock(released.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err = Run(t.Context(), Options{Now: time.Unix(0, 0), Out: out})
	for _, want := range []string{"clock says 1970-01-01T00:00:00Z", "set the clock", payload.KubernetesVersion} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the output folder was made")
	}
}

func TestSourceDate(t *testing.T) {
	lock := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Time{
		"": lock, "1700000000": time.Unix(1700000000, 0).UTC(), "315532800": time.Unix(315532800, 0).UTC(), "4294967295": time.Unix(4294967295, 0).UTC(),
		"0": {}, "-1": {}, "315532799": {}, "4294967296": {}, "99999999999999999999": {}, "x": {}, "1e9": {}, " 1700000000": {}, "2026-05-01": {},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", value)
		got, err := SourceDate(lock)
		if !got.Equal(want) || (err == nil) == want.IsZero() || err != nil && !strings.Contains(err.Error(), value) {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
}

func TestLockOutputRemovesWhatAKilledBuildLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".kiln-1.img.tmp-123")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockOutput(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("it is still there")
	}
	if _, err := lockOutput(dir); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "-o") {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = lockOutput(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}
