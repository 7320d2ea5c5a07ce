package phase

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
)

// State is how far a run has come.
type State string

// The states of a Record.
const (
	StateNone     State = "none"     // no run has begun; never in a file
	StateRunning  State = "running"  // a run is under way, or was cut off by a reset
	StateFailed   State = "failed"   // a run gave up; the next one continues
	StateComplete State = "complete" // every phase is done
)

// recordVersion is the version of the file's format.
const recordVersion = 1

// Record is what firstboot remembers between runs and boots. Runner alone writes
// it; it is replaced as a whole and fsynced at every change, so that a reset at
// any instant leaves the record of before or of after. It holds no secret and is
// world-readable: `firstboot status` needs no root.
type Record struct {
	// Version is the format. Read by Load, which refuses others.
	Version int `json:"version"`
	// State is read by `firstboot run`, which has nothing to do when complete, and by status.
	State State `json:"state"`
	// Role is the boot plan's role. Read by status, which lists that role's phases.
	Role string `json:"role,omitempty"`
	// PlanDigest is the SHA-256 of the boot plan the phases were done for. Read by
	// Runner: phases done for another plan are done again.
	PlanDigest string `json:"planDigest"`
	// BootID is the kernel's id of the boot that wrote last. Read by Runner, which
	// counts boots, and by status.
	BootID string `json:"bootID"`
	// Boots counts the boots that ran phases. Read by status.
	Boots int `json:"boots"`
	// Started and Finished are of the whole first boot, by the node's clock. Read by status.
	Started  time.Time  `json:"started"`
	Finished *time.Time `json:"finished,omitempty"`
	// LastError is why the last run gave up; empty while it runs and when complete. Read by status.
	LastError string `json:"lastError,omitempty"`
	// Phases are those that were begun, in their order.
	Phases []PhaseRecord `json:"phases"`
}

// PhaseRecord is one phase of a Record.
type PhaseRecord struct {
	// Name identifies the phase. Read by Runner.
	Name string `json:"name"`
	// Done says that it need not run again. Read by Runner.
	Done bool `json:"done"`
	// Started is when it was first begun and Finished when it was done, by the
	// node's clock, which may jump in between. Read by status.
	Started  time.Time  `json:"started"`
	Finished *time.Time `json:"finished,omitempty"`
	// Took is how long its last attempt ran, by the monotonic clock. Read by status.
	Took Duration `json:"took"`
	// Attempts counts how often it was begun, in all runs. Read by status.
	Attempts int `json:"attempts"`
	// Waiting is what the attempt under way waits for, and why that is not there yet;
	// empty once the attempt ended. Read by status.
	Waiting string `json:"waiting,omitempty"`
	// LastError is why its last failed attempt failed. It stays after success, as
	// the reason for the attempts. Read by status.
	LastError string `json:"lastError,omitempty"`
}

// Duration is a time.Duration written as Go does: "1m2.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).Round(time.Millisecond).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Load reads the record. Without a file it returns a Record of StateNone. A file
// that cannot be read or understood is an error: taking it for absent would do
// everything again on a node that may serve a cluster already.
func Load(path string) (Record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{Version: recordVersion, State: StateNone}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("record of firstboot: %w", err)
	}
	return parseRecord(path, data)
}

func parseRecord(path string, data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("record of firstboot %s is damaged: %w; to start over, reset the node", path, err)
	}
	if r.Version != recordVersion {
		return Record{}, fmt.Errorf("record of firstboot %s has version %d; this firstboot reads version %d", path, r.Version, recordVersion)
	}
	switch r.State {
	case StateRunning, StateFailed, StateComplete:
	default:
		return Record{}, fmt.Errorf("record of firstboot %s is damaged: unknown state %q; to start over, reset the node", path, r.State)
	}
	return r, nil
}

func (r *Record) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("record of firstboot: %w", err)
	}
	r.Version = recordVersion
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("record of firstboot: %w", err)
	}
	return atomicfile.WriteFile(path, append(data, '\n'), 0o644)
}

// Phase returns the record of the named phase, or nil if it was not begun.
func (r *Record) Phase(name string) *PhaseRecord {
	for i := range r.Phases {
		if r.Phases[i].Name == name {
			return &r.Phases[i]
		}
	}
	return nil
}

// begin returns the record of the named phase, which it adds if needed.
func (r *Record) begin(name string, now time.Time) *PhaseRecord {
	if p := r.Phase(name); p != nil {
		return p
	}
	r.Phases = append(r.Phases, PhaseRecord{Name: name, Started: now})
	return &r.Phases[len(r.Phases)-1]
}
