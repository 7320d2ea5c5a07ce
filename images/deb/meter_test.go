package deb

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestMeter: a file that is tried again, beside one that was there already.
func TestMeter(t *testing.T) {
	var told []string
	m := &meter{total: 15, report: func(done, total int64) { told = append(told, fmt.Sprintf("%d/%d", done, total)) }}
	cached, fetched := &transfer{meter: m}, &transfer{meter: m}
	cached.finish(5)
	for _, content := range []string{"abc", "0123456789"} {
		if _, err := io.ReadAll(fetched.begin(io.NopCloser(strings.NewReader(content)))); err != nil {
			t.Fatal(err)
		}
	}
	fetched.finish(10)
	if want := []string{"5/15", "5/15", "8/15", "8/15", "5/15", "15/15", "15/15", "15/15"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
