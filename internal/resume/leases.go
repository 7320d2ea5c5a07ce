package resume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/staticpod"
)

// ReleaseLease gives back the lease of a component if this node's held it before the
// reboot, as the component itself does when it is stopped in peace. Else the one that
// starts now waits until the lease of its predecessor has run out, and new pods with it.
// It may be called only while the node's component does not run. It reports whether
// there was a lease to give back.
func ReleaseLease(ctx context.Context, c kubernetes.Interface, component, node string) (bool, error) {
	leases := c.CoordinationV1().Leases(metav1.NamespaceSystem)
	l, err := leases.Get(ctx, component, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease %s: %w", component, err)
	}
	if !heldBy(l, node) {
		return false, nil
	}
	// What client-go's leader election leaves behind (ReleaseOnCancel).
	none, second, now := "", int32(1), metav1.NewMicroTime(time.Now())
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime, l.Spec.AcquireTime = &none, &second, &now, &now
	// An update, not a patch: of a lease that somebody has taken meanwhile nothing changes.
	if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return false, fmt.Errorf("lease %s: %w", component, err)
	}
	return true, nil
}

// heldBy says whether a lease's holder ran on the node: components call themselves
// HOSTNAME_UUID.
func heldBy(l *coordinationv1.Lease, node string) bool {
	if l.Spec.HolderIdentity == nil {
		return false
	}
	host, id, ok := strings.Cut(*l.Spec.HolderIdentity, "_")
	return ok && id != "" && host == node
}

// ReleaseLeases is ReleaseLease of all components that elect a leader, each by a client of its own, which may
// change no other's. One that fails keeps no other from being tried.
func ReleaseLeases(ctx context.Context, client func(component string) (kubernetes.Interface, error), node string, log func(format string, a ...any)) error {
	var errs []error
	for _, component := range []string{staticpod.ControllerManager, staticpod.Scheduler} {
		c, err := client(component)
		released := false
		if err == nil {
			released, err = ReleaseLease(ctx, c, component, node)
		}
		if released {
			log("gave back the lease of the %s of before", component)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
