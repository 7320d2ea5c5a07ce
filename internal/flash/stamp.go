package flash

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kiln-os/kiln/internal/nodeimage"
)

// CheckCard returns what is at path if a stamp may be written to it: a free disk, or
// a file in the place of one.
func CheckCard(path string) (Disk, error) { return free(path) }

// Holds says what is on the target in words, if a node of the profile may be stamped
// into it: the base image of a profile, or the image of a node. An image that has been
// booted may be only with reset.
func (t *Target) Holds(node, profile string, reset bool) (string, error) {
	found, err := nodeimage.CheckStamp(t.dev, node, profile, reset)
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.Path, err)
	}
	// What a damaged stamp says does not matter: it is replaced.
	_, old, err := nodeimage.NodeOf(t.dev)
	what := "a base image of profile " + found.Profile
	switch {
	case err != nil:
		what = "an image of profile " + found.Profile + " with a damaged stamp"
	case old != "":
		what = "the image of node " + old
	}
	if found.Booted {
		what += ", with the state of a node that has been booted, which is removed"
	}
	return what, nil
}

// Stamp makes the image on the target that of a node, as nodeimage.Stamp does, and
// reads the stamp back from the medium.
func (t *Target) Stamp(ctx context.Context, id nodeimage.Identity, reset bool) (nodeimage.Written, error) {
	w, err := nodeimage.StampOpen(ctx, t.dev, id, reset)
	if err != nil {
		return w, t.explainStamp(err)
	}
	if err := t.dev.dropCache(); err != nil {
		return w, t.explainStamp(err)
	}
	if err := id.ReadBack(t.dev); err != nil {
		if lost(err) {
			return w, t.explainStamp(err)
		}
		return w, fmt.Errorf("%s: what was written reads back differently: %w; the disk is broken, or smaller than it says, so take another", t.Path, err)
	}
	t.dev.reread()
	return w, nil
}

// explainStamp says what an error means for the disk.
func (t *Target) explainStamp(err error) error {
	if lost(err) {
		return fmt.Errorf("%s takes or gives no more data: %w; was it pulled out, or is it broken? It has the old stamp or the new one: put it in and stamp it again, or take another", t.Path, err)
	}
	return fmt.Errorf("%s: %w", t.Path, err)
}

// lost says whether an error is that of a disk that has gone, or takes no data.
func lost(err error) bool {
	return slices.ContainsFunc(lostErrors, func(e error) bool { return errors.Is(err, e) })
}
