package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
)

// Create makes the token known to the cluster. One whose id exists is an error: the
// other may be in use.
func Create(ctx context.Context, client kubernetes.Interface, t Token) error {
	if err := t.Validate(); err != nil {
		return err
	}
	_, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, t.Object(), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("a token with the id %s already exists; delete it first, or take another token", t.ID)
	}
	if err != nil {
		return fmt.Errorf("create bootstrap token %s: %w", t.ID, err)
	}
	return nil
}

// List returns the cluster's tokens, ordered by id. What has the type of a token but
// is none is in unreadable.
func List(ctx context.Context, client kubernetes.Interface) (tokens []Token, unreadable []error, err error) {
	secrets, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(bootstrapapi.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list bootstrap tokens: %w", err)
	}
	for i := range secrets.Items {
		t, err := FromObject(&secrets.Items[i])
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		tokens = append(tokens, t)
	}
	slices.SortFunc(tokens, func(a, b Token) int { return strings.Compare(a.ID, b.ID) })
	return tokens, unreadable, nil
}

// Delete removes the token with the id from the cluster.
func Delete(ctx context.Context, client kubernetes.Interface, id string) error {
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, bootstraputil.BootstrapTokenSecretName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no bootstrap token with the id %s", id)
	}
	if err != nil {
		return fmt.Errorf("delete bootstrap token %s: %w", id, err)
	}
	return nil
}
