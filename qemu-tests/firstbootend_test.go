//go:build boot && (bench || long)

package qemutests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// waitFirstbootEnd waits until nothing of the first boot runs any more.
func (n *node) waitFirstbootEnd(t *testing.T) {
	t.Helper()
	ctx := n.within(t, 10*time.Minute)
	for {
		out, err := n.ssh.Run(ctx, "systemctl show -P ActiveState firstboot.service")
		if state := strings.TrimSpace(out); err == nil && state != "activating" {
			if state != "active" {
				t.Fatalf("firstboot.service is %s", state)
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("firstboot.service does not end: %w", context.Cause(ctx)))
		case <-time.After(2 * time.Second):
		}
	}
}
