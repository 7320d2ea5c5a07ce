//go:build boot && bench

package qemutests

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// BenchFileEnv names the file that gets the rows as JSON.
const BenchFileEnv = "KILN_BENCH_JSON"

// benchRow is one line of the benchmark: what was measured, and beside it a reference
// that was measured in the same run on the same machine.
type benchRow struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`      // s, MiB or MB
	Reference *float64 `json:"reference"` // in the same unit; null where there is none
	Ratio     *float64 `json:"ratio"`     // value / reference
	Bound     string   `json:"bound"`     // what must hold of ratio or value: "ratio <= 0.5"
	Held      bool     `json:"held"`
}

// bound is the most that a row's ratio, or value, may be; 0 is none.
type bound struct{ ratio, value float64 }

func (b bound) String() string {
	var parts []string
	if b.ratio > 0 {
		parts = append(parts, fmt.Sprintf("ratio <= %g", b.ratio))
	}
	if b.value > 0 {
		parts = append(parts, fmt.Sprintf("value <= %g", b.value))
	}
	return strings.Join(parts, ", ")
}

var bench struct {
	sync.Mutex
	rows []benchRow
}

// record adds a row. One whose bound does not hold fails the test, which goes on.
// A reference of 0 is none.
func record(t *testing.T, name string, value float64, unit string, reference float64, b bound) {
	t.Helper()
	r := benchRow{Name: name, Value: value, Unit: unit, Bound: b.String(), Held: b.value == 0 || value <= b.value}
	if reference > 0 {
		ratio := value / reference
		r.Reference, r.Ratio = &reference, &ratio
		r.Held = r.Held && (b.ratio == 0 || ratio <= b.ratio)
	} else if b.ratio > 0 {
		r.Held = false
		t.Errorf("%s: there is no reference", name)
	}
	bench.Lock()
	bench.rows = append(bench.rows, r)
	bench.Unlock()
	if !r.Held {
		t.Errorf("%s: %s does not hold: %s", name, r.Bound, r)
	}
}

func (r benchRow) String() string {
	s := fmt.Sprintf("%.3g %s", r.Value, r.Unit)
	if r.Reference != nil {
		s += fmt.Sprintf(", reference %.3g %s, ratio %.2f", *r.Reference, r.Unit, *r.Ratio)
	}
	return s
}

// TestMain prints the table and writes the file after the last test.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := report(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func report() error {
	if len(bench.rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tvalue\treference\tratio\tmust\t")
	for _, r := range bench.rows {
		reference, ratio, held := "", "", ""
		if r.Reference != nil {
			reference, ratio = fmt.Sprintf("%.2f %s", *r.Reference, r.Unit), fmt.Sprintf("%.2f", *r.Ratio)
		}
		if !r.Held {
			held = "missed"
		}
		fmt.Fprintf(w, "%s\t%.2f %s\t%s\t%s\t%s\t%s\n", r.Name, r.Value, r.Unit, reference, ratio, r.Bound, held)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	path := os.Getenv(BenchFileEnv)
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(bench.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
