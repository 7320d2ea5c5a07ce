package host

import (
	"context"
	"fmt"
	"net"

	godbus "github.com/godbus/dbus/v5"
)

// ReconfigureDevice has systemd-networkd begin anew with a network device, so that
// the DHCP server is asked again. By itself networkd does so after half of the
// lease's time, which is hours; renewing the lease early is tried only once.
func ReconfigureDevice(ctx context.Context, device string) error {
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
	if err := networkd.CallWithContext(ctx, "org.freedesktop.network1.Manager.ReconfigureLink", 0, int32(ifc.Index)).Err; err != nil {
		return fmt.Errorf("systemd-networkd: reconfigure %s: %w", device, err)
	}
	return nil
}
