package main

import (
	"slices"

	"github.com/kiln-os/kiln/internal/phase"
)

// unskipped are the phases that the boot plan does not skip.
func unskipped(phases []phase.Phase, skip []string, r phase.Report) []phase.Phase {
	var out []phase.Phase
	for _, p := range phases {
		if slices.Contains(skip, p.Name) {
			r.Step("the configuration skips phase %s", p.Name)
			continue
		}
		out = append(out, p)
	}
	return out
}
