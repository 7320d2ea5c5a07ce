// Package tokens creates, lists and deletes bootstrap tokens in a running cluster,
// as kubeadm does (cmd/kubeadm/app/apis/bootstraptoken/v1): real kubeadm sees the
// same tokens.
package tokens

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// NodeGroup is the group of tokens that may join nodes, to which kubeadm and Kiln
// grant what a joining machine needs.
const NodeGroup = "system:bootstrappers:kubeadm:default-node-token"

// DefaultTTL is the life of a token if no other is asked for.
const DefaultTTL = 24 * time.Hour

// The usages of a token.
const (
	Signing        = "signing"        // cluster-info is signed with it
	Authentication = "authentication" // it is a user's credentials
)

// Usages lists all usages.
func Usages() []string { return []string{Signing, Authentication} }

// Token is a bootstrap token with all that its Secret says.
type Token struct {
	ID          string
	Secret      secret.Value
	Description string
	Expires     time.Time // the zero time means never
	Usages      []string
	Groups      []string
}

// Value is the whole token, <id>.<secret>.
func (t Token) Value() secret.Value { return pki.Token{ID: t.ID, Secret: t.Secret}.Value() }

// Expiry is when a token expires that is made now and lives for ttl; 0 is for ever.
func Expiry(now time.Time, ttl time.Duration) (time.Time, error) {
	switch {
	case ttl < 0:
		return time.Time{}, fmt.Errorf("a token's life cannot be %s: give a duration such as 24h, or 0 for a token that never expires", ttl)
	case ttl == 0:
		return time.Time{}, nil
	}
	return now.UTC().Truncate(time.Second).Add(ttl), nil
}

// Validate reports every mistake, by kubeadm's rules.
func (t Token) Validate() error {
	var errs []error
	if _, err := pki.ParseToken(t.Value()); err != nil {
		errs = append(errs, err)
	}
	for _, u := range t.Usages {
		if !slices.Contains(Usages(), u) {
			errs = append(errs, fmt.Errorf("unknown usage %q of a token; there are %s", u, strings.Join(Usages(), " and ")))
		}
	}
	if len(t.Groups) > 0 && !slices.Contains(t.Usages, Authentication) {
		errs = append(errs, fmt.Errorf("a token can have groups only if its usages include %s", Authentication))
	}
	for _, g := range t.Groups {
		if err := bootstraputil.ValidateBootstrapGroupName(g); err != nil {
			errs = append(errs, fmt.Errorf("group %q of a token: it must match %s", g, bootstrapapi.BootstrapGroupPattern))
		}
	}
	return errors.Join(errs...)
}

// Object is the Secret that makes the API server know the token.
func (t Token) Object() *corev1.Secret {
	s := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: bootstraputil.BootstrapTokenSecretName(t.ID)},
		Type:       bootstrapapi.SecretTypeBootstrapToken,
		Data: map[string][]byte{
			bootstrapapi.BootstrapTokenIDKey:     []byte(t.ID),
			bootstrapapi.BootstrapTokenSecretKey: t.Secret.Reveal(),
		},
	}
	if t.Description != "" {
		s.Data[bootstrapapi.BootstrapTokenDescriptionKey] = []byte(t.Description)
	}
	if !t.Expires.IsZero() {
		s.Data[bootstrapapi.BootstrapTokenExpirationKey] = []byte(t.Expires.UTC().Format(time.RFC3339))
	}
	for _, u := range t.Usages {
		s.Data[bootstrapapi.BootstrapTokenUsagePrefix+u] = []byte("true")
	}
	if len(t.Groups) > 0 {
		s.Data[bootstrapapi.BootstrapTokenExtraGroupsKey] = []byte(strings.Join(t.Groups, ","))
	}
	return s
}

// FromObject reads a token's Secret. Its errors never quote the token.
func FromObject(s *corev1.Secret) (Token, error) {
	bad := func(format string, args ...any) (Token, error) {
		return Token{}, fmt.Errorf("the Secret %s/%s is no bootstrap token: "+format, append([]any{s.Namespace, s.Name}, args...)...)
	}
	id := string(s.Data[bootstrapapi.BootstrapTokenIDKey])
	if want := bootstraputil.BootstrapTokenSecretName(id); id == "" || s.Name != want {
		return bad("its %s does not belong to its name, which is %s and the id", bootstrapapi.BootstrapTokenIDKey, bootstrapapi.BootstrapTokenSecretPrefix)
	}
	t := Token{ID: id, Secret: secret.New(s.Data[bootstrapapi.BootstrapTokenSecretKey]), Description: string(s.Data[bootstrapapi.BootstrapTokenDescriptionKey])}
	if _, err := pki.ParseToken(t.Value()); err != nil {
		return bad("%w", err)
	}
	if e := string(s.Data[bootstrapapi.BootstrapTokenExpirationKey]); e != "" {
		var err error
		if t.Expires, err = time.Parse(time.RFC3339, e); err != nil {
			return bad("its expiration is no time as of RFC 3339")
		}
	}
	for k, v := range s.Data {
		if u, ok := strings.CutPrefix(k, bootstrapapi.BootstrapTokenUsagePrefix); ok && string(v) == "true" {
			t.Usages = append(t.Usages, u)
		}
	}
	slices.Sort(t.Usages)
	if g := string(s.Data[bootstrapapi.BootstrapTokenExtraGroupsKey]); g != "" {
		t.Groups = strings.Split(g, ",")
	}
	return t, nil
}

// ParseID reads a token's id, alone or as the first part of a whole token.
func ParseID(s string) (string, error) {
	if bootstraputil.IsValidBootstrapTokenID(s) {
		return s, nil
	}
	t, err := pki.ParseToken(secret.FromString(s))
	if err != nil {
		return "", errors.New("want a token's id, 6 characters of a-z and 0-9, or a whole token: the id, a dot and 16 characters")
	}
	return t.ID, nil
}
