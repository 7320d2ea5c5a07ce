// Package platform names the platforms that give their machines user data.
package platform

// Ignition's ids of the platforms whose metadata internal/userdata reads.
const (
	AWS       = "aws"
	Azure     = "azure"
	GCP       = "gcp"
	OpenStack = "openstack"
	PowerVS   = "powervs"
)

// Cloud says whether a platform, by Ignition's id, is one of these.
func Cloud(id string) bool {
	switch id {
	case AWS, Azure, GCP, OpenStack, PowerVS:
		return true
	}
	return false
}
