package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
)

// nodeName returns the node's name: that of the boot plan, or the one that the platform
// has given the machine, for whose image the plan has a name.
func nodeName(plan bootplan.Plan, paths host.Paths) (string, error) {
	name, source := plan.Node.Name, "boot plan: node.name"
	if plan.Node.NameFromPlatform {
		source = paths.PlatformName()
		b, err := os.ReadFile(source)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the boot plan says that the platform names this node, and it has given no name: give the machine one and make a new one, or name the node in %s and start firstboot again", source)
		}
		if err != nil {
			return "", err
		}
		name = string(b)
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if e := validation.IsDNS1123Subdomain(name); len(e) > 0 {
		return "", fmt.Errorf("%s %q: %s", source, name, strings.Join(e, "; "))
	}
	return name, nil
}
