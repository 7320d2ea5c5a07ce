package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/phase"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show the phases, their times and the last error", Args: noArgs,
		Long: `Show how far this machine's first boot is: the state, each phase with its time
and attempts, and the last error. Needs no root. With --json it prints the record
as it is kept, or {"state":"none"} before the first run.`,
		Example: `  firstboot status
  firstboot status --json | jq .state
  firstboot status --root /mnt   # of a disk that is mounted there`,
		RunE: func(*cobra.Command, []string) error {
			rec, err := phase.Load(a.paths.Record())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.Out, rec)
			}
			return writeStatus(a.Out, rec)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func writeJSON(w io.Writer, rec phase.Record) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if rec.State == phase.StateNone {
		return enc.Encode(map[string]any{"version": rec.Version, "state": rec.State, "phases": []any{}})
	}
	return enc.Encode(rec)
}

func writeStatus(out io.Writer, rec phase.Record) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "state\t%s\n", describe(rec.State))
	if rec.State == phase.StateNone {
		return w.Flush()
	}
	fmt.Fprintf(w, "started\t%s\n", rec.Started.Format(time.RFC3339))
	if rec.Finished != nil {
		fmt.Fprintf(w, "finished\t%s\n", rec.Finished.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "boots\t%d\n", rec.Boots)
	if rec.Role != "" {
		fmt.Fprintf(w, "role\t%s\n", rec.Role)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n#\tphase\tstate\ttook\tattempts\n")
	for i, p := range (node{}).phases(bootplan.Role(rec.Role)) {
		pr := rec.Phase(p.Name)
		switch {
		case pr == nil:
			fmt.Fprintf(w, "%d\t%s\tto do\t-\t0\n", i+1, p.Name)
		case pr.Done:
			fmt.Fprintf(w, "%d\t%s\tdone\t%s\t%d\n", i+1, p.Name, took(pr.Took), pr.Attempts)
		case rec.State == phase.StateFailed:
			fmt.Fprintf(w, "%d\t%s\tfailed\t%s\t%d\n", i+1, p.Name, took(pr.Took), pr.Attempts)
		default:
			fmt.Fprintf(w, "%d\t%s\tbegun\t-\t%d\n", i+1, p.Name, pr.Attempts)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range rec.Phases {
		if p.Waiting != "" && !p.Done {
			fmt.Fprintf(w, "\n%s: %s\n", p.Name, p.Waiting)
		}
		if p.LastError != "" && !p.Done {
			fmt.Fprintf(w, "\nlast error of %s:\n%s\n", p.Name, p.LastError)
		}
	}
	return w.Flush()
}

func describe(s phase.State) string {
	switch s {
	case phase.StateNone:
		return "none: firstboot has not run yet"
	case phase.StateRunning:
		return "running, or cut off by a reset; the next run continues"
	case phase.StateFailed:
		return "failed; the next run continues"
	}
	return string(s)
}

func took(d phase.Duration) string { return fmt.Sprintf("%.1fs", time.Duration(d).Seconds()) }
