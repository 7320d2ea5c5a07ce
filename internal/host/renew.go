package host

import (
	"context"
	"fmt"
	"net"

	godbus "github.com/godbus/dbus/v5"
)

// RenewLease has systemd-networkd ask the DHCP server of a network device again. By
// itself it does so after half of the lease's time, which is hours.
func RenewLease(ctx context.Context, device string) error {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("network device %s: %w", device, err)
	}
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer bus.Close()
	networkd := bus.Object("org.freedesktop.network1", "/org/freedesktop/network1")
	if err := networkd.CallWithContext(ctx, "org.freedesktop.network1.Manager.RenewLink", 0, int32(ifc.Index)).Err; err != nil {
		return fmt.Errorf("systemd-networkd: renew the lease of %s: %w", device, err)
	}
	return nil
}
