package bootstraptoken

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/secret"
)

func TestTokenSecret(t *testing.T) {
	for name, tc := range map[string]struct {
		token bootplan.Token
		keys  string
		extra string
	}{
		"of nodes": {bootplan.Token{}, "[auth-extra-groups description token-id token-secret usage-bootstrap-authentication usage-bootstrap-signing]", "system:bootstrappers:kubeadm:default-node-token"},
		"expires":  {bootplan.Token{Expires: time.Unix(0, 0)}, "[auth-extra-groups description expiration token-id token-secret usage-bootstrap-authentication usage-bootstrap-signing]", "system:bootstrappers:kubeadm:default-node-token"},
		"signing":  {bootplan.Token{Usages: []string{"signing"}}, "[description token-id token-secret usage-bootstrap-signing]", ""},
		"groups":   {bootplan.Token{Usages: []string{"authentication"}, Groups: []string{"a", "b"}}, "[auth-extra-groups description token-id token-secret usage-bootstrap-authentication]", "a,b"},
	} {
		tc.token.ID, tc.token.Secret = "abcdef", secret.FromString("0123456789abcdef")
		s := asToken(tc.token).Object()
		if keys := fmt.Sprint(slices.Sorted(maps.Keys(s.Data))); keys != tc.keys || string(s.Data["auth-extra-groups"]) != tc.extra || s.Name != "bootstrap-token-abcdef" {
			t.Errorf("%s: %s, groups %s", name, keys, s.Data["auth-extra-groups"])
		}
	}
}
