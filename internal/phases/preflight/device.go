package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kiln-os/kiln/pki"
)

// minSpace is what a node must have free for its state: etcd or the kubelet's
// folders, logs and what containers write. The images themselves are in /usr.
const minSpace = 512 << 20 // bytes

// clock wants a time that can be right: no certificate is valid before its CA is.
// firstboot has set a clock that was too early already, if it could.
func clock(_ context.Context, m *Machine) error {
	now := m.Now()
	show := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	built, err := m.Paths.BuildTime()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case now.Before(built):
		return fmt.Errorf("the clock shows %s, but the image was built at %s; check the board's clock and its battery, and that a time server can be reached", show(now), show(built))
	}
	if begin := m.Config.Plan.Cluster.NotBefore; now.Before(begin) {
		return fmt.Errorf("the clock shows %s, but the cluster's CA is valid from %s on; check the board's clock and its battery, and that a time server can be reached", show(now), show(begin))
	}
	data, err := os.ReadFile(m.Paths.PKI("ca.crt"))
	if errors.Is(err, fs.ErrNotExist) { // a worker's comes from the cluster
		return nil
	}
	if err != nil {
		return err
	}
	ca, err := pki.ParseCertificate(data)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", m.Paths.PKI("ca.crt"), err)
	case now.Before(ca.NotBefore):
		return fmt.Errorf("the clock shows %s, but the cluster's CA is valid from %s on; check the board's clock and its battery, and that a time server can be reached", show(now), show(ca.NotBefore))
	case now.After(ca.NotAfter):
		return asWarning{fmt.Errorf("the clock shows %s, but the cluster's CA is valid until %s only; if the clock is right the cluster needs a new CA", show(now), show(ca.NotAfter))}
	}
	return nil
}

// diskSpace wants room for the node's state, and as much of it that the kubelet
// does not begin with evicting pods: it does so below 10 % of the bytes and 5 % of
// the inodes.
func diskSpace(_ context.Context, m *Machine) error {
	dir := m.Paths.At("/var/lib")
	s, err := m.Space(dir)
	if err != nil {
		return err
	}
	switch {
	case s.FreeBytes < minSpace:
		return fmt.Errorf("%s has %d MiB free of %d MiB, a node needs %d MiB; use a larger disk or card", dir, s.FreeBytes>>20, s.Bytes>>20, minSpace>>20)
	case s.FreeBytes < s.Bytes/10:
		return asWarning{fmt.Errorf("%s has %d MiB free of %d MiB; below 10 %% the kubelet takes no pods", dir, s.FreeBytes>>20, s.Bytes>>20)}
	case s.Inodes > 0 && s.FreeInodes < s.Inodes/20:
		return asWarning{fmt.Errorf("%s has %d inodes free of %d; below 5 %% the kubelet takes no pods", dir, s.FreeInodes, s.Inodes)}
	}
	return nil
}

// storageHealth reads what eMMC devices, and the few SD cards that do, say of
// themselves (the kernel's Documentation/mmc/mmc-dev-attrs.rst).
func storageHealth(_ context.Context, m *Machine) error {
	devices, err := filepath.Glob(filepath.Join(m.Paths.At("/sys/block"), "mmcblk*"))
	if err != nil {
		return err
	}
	slices.Sort(devices)
	var errs []error
	for _, d := range devices {
		attribute := func(name string) (string, error) {
			data, err := os.ReadFile(filepath.Join(d, "device", name))
			if errors.Is(err, fs.ErrNotExist) { // most SD cards
				return "", nil
			}
			return strings.TrimSpace(string(data)), err
		}
		life, err := attribute("life_time")
		if err != nil {
			errs = append(errs, err)
		}
		eol, err := attribute("pre_eol_info")
		if err != nil {
			errs = append(errs, err)
		}
		if worn := wear(life, eol); worn != "" {
			errs = append(errs, fmt.Errorf("%s: %s; copy what you need and replace it", filepath.Base(d), worn))
		}
	}
	return errors.Join(errs...)
}

// wear says in words that a device nears its end, by JEDEC's codes (eMMC 5.1,
// EXT_CSD 267 to 269): of the life time of each of two kinds of memory in tenths,
// and of the spare blocks. "" means that it is well or does not say.
func wear(lifeTime, preEOL string) string {
	code := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 0, 8)
		if err != nil {
			return 0 // not defined
		}
		return n
	}
	switch code(preEOL) {
	case 2:
		return "it has used up 80 % of its spare blocks"
	case 3:
		return "it has used up 90 % of its spare blocks and may fail at any time"
	}
	var most uint64
	for _, s := range strings.Fields(lifeTime) {
		most = max(most, code(s))
	}
	switch {
	case most == 10:
		return "it has used up 90 % or more of its estimated life"
	case most == 11:
		return "it is past its estimated life"
	}
	return ""
}

// entropy looks whether the kernel's random number generator is seeded. Keys are
// never made from less: making them waits.
func entropy(_ context.Context, m *Machine) error {
	ready, err := m.Seeded()
	if err != nil {
		return err
	}
	if ready {
		return nil
	}
	have := ""
	if data, err := os.ReadFile(m.Paths.At("/proc/sys/kernel/random/entropy_avail")); err == nil {
		have = " (" + strings.TrimSpace(string(data)) + " bits)"
	}
	return fmt.Errorf("the kernel has too little entropy to make keys%s; the first boot waits for it, and goes on as soon as the board has a hardware source, or network and disk have given some", have)
}
