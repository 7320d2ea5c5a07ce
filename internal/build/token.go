package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/internal/tokens"
	"github.com/kiln-os/kiln/pki"
)

// NewTokensFile holds, in SecretsDir, the Secrets that make a running cluster know the
// tokens that were made last.
const NewTokensFile = "new-tokens.yaml"

// TokenOptions say what RenewTokens makes.
type TokenOptions struct {
	// Nodes get a token each; none means one token that all nodes may use.
	Nodes []string
	// Image is an existing image or disk that is stamped for the only one of Nodes; ""
	// means the images of the output folder.
	Image string
	// Reset stamps images that have been booted, too, and removes their state.
	Reset bool
	// Apply, if not nil, makes a running cluster know the tokens. If it fails, nothing
	// is changed.
	Apply func(context.Context, []tokens.Token) error
}

// NewToken is a token that was made. Its secret is in the secrets folder alone.
type NewToken struct {
	ID      string     `json:"id"`
	Node    string     `json:"node,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Skipped is an image that was left as it was.
type Skipped struct {
	Node  string `json:"node"`
	Image string `json:"image"`
	Why   string `json:"why"`
}

// RenewedTokens is what RenewTokens did.
type RenewedTokens struct {
	Tokens  []NewToken `json:"tokens"`
	Applied bool       `json:"applied"`
	// Manifest is NewTokensFile, for a cluster that was not told.
	Manifest string    `json:"manifest,omitempty"`
	Stamped  []Stamped `json:"stamped"`
	Skipped  []Skipped `json:"skipped,omitempty"`
}

// RenewTokens makes new bootstrap tokens for a cluster whose keys exist and stamps
// the images that are there with them. After a failure it can be run again: a token
// that is not used expires.
func RenewTokens(ctx context.Context, o Options, t TokenOptions) (*RenewedTokens, error) {
	var nodes []spec.Node
	for _, name := range t.Nodes {
		n, err := findNode(o.Cluster, name)
		if err != nil {
			return nil, err
		}
		if n.Pool() {
			return nil, fmt.Errorf("the image of %s is that of several machines: make a token for all nodes, without --node", name)
		}
		nodes = append(nodes, n)
	}
	secretsDir := filepath.Join(o.Out, SecretsDir)
	if err := requireKeys(o); err != nil {
		return nil, err
	}
	unlock, err := lockOutput(o.Out)
	if err != nil {
		return nil, err
	}
	defer unlock()
	o.Progress.Step("new tokens")
	// Read before anything is made: what is wrong with the folder is said first.
	if _, err := secrets(o); err != nil {
		return nil, err
	}
	result := &RenewedTokens{Stamped: []Stamped{}}
	made, err := makeTokens(o, t.Nodes, result)
	if err != nil {
		return nil, err
	}
	if err := announce(ctx, o, t, made, result); err != nil {
		return nil, err
	}
	for i, m := range made {
		if err := pki.StoreToken(secretsDir, result.Tokens[i].Node, m); err != nil {
			return nil, err
		}
	}
	authority, err := secrets(o)
	if err != nil {
		return nil, err
	}
	if t.Image == "" && len(nodes) == 0 {
		nodes = o.Cluster.Nodes
	}
	return result, restamp(ctx, o, t, authority, nodes, result)
}

func makeTokens(o Options, nodes []string, result *RenewedTokens) ([]pki.Token, error) {
	if len(nodes) == 0 {
		nodes = []string{""}
	}
	var made []pki.Token
	for _, node := range nodes {
		tok, err := pki.NewToken(o.Now, o.Cluster.TokenTTL())
		if err != nil {
			return nil, err
		}
		made = append(made, tok)
		n := NewToken{ID: tok.ID, Node: node}
		if !tok.Expires.IsZero() {
			n.Expires = &tok.Expires
		}
		result.Tokens = append(result.Tokens, n)
	}
	return made, nil
}

// announce tells the running cluster of the tokens, or writes down how to.
func announce(ctx context.Context, o Options, t TokenOptions, made []pki.Token, result *RenewedTokens) error {
	var list []tokens.Token
	var docs []string
	for i, m := range made {
		tok := tokens.Token{
			ID: m.ID, Secret: m.Secret, Expires: m.Expires, Description: render.TokenDescription(result.Tokens[i].Node),
			Usages: tokens.Usages(), Groups: []string{tokens.NodeGroup},
		}
		doc, err := yaml.Marshal(tok.Object())
		if err != nil {
			return errors.New("a token's Secret cannot be encoded") // the error may quote it
		}
		list, docs = append(list, tok), append(docs, string(doc))
	}
	file := filepath.Join(o.Out, SecretsDir, NewTokensFile)
	if t.Apply != nil {
		o.Progress.Step("tell the cluster")
		if err := t.Apply(ctx, list); err != nil {
			return err
		}
		result.Applied = true
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	result.Manifest = file
	return atomicfile.WriteFile(file, []byte(strings.Join(docs, "---\n")), 0o600)
}

// restamp stamps the image that was named, or those of nodes in the output folder.
func restamp(ctx context.Context, o Options, t TokenOptions, a *pki.Authority, nodes []spec.Node, result *RenewedTokens) error {
	o.Progress.Step("stamps")
	for _, n := range nodes {
		image := t.Image
		if image == "" {
			image = filepath.Join(o.Out, ImageName(n.Name))
			if _, err := os.Stat(image); errors.Is(err, os.ErrNotExist) {
				result.Skipped = append(result.Skipped, Skipped{n.Name, image, "there is no such image"})
				continue
			}
		}
		id, err := identity(o.Cluster, a, n)
		if err != nil {
			return err
		}
		start := time.Now()
		w, err := nodeimage.Stamp(ctx, image, id, t.Reset)
		if errors.Is(err, nodeimage.ErrBooted) && t.Image == "" {
			result.Skipped = append(result.Skipped, Skipped{n.Name, image, "it has been booted"})
			continue
		}
		if err != nil {
			return fmt.Errorf("the token is made, but the stamp of node %s is not: %w", n.Name, err)
		}
		result.Stamped = append(result.Stamped, Stamped{Node: n.Name, Image: image, Written: w, Seconds: time.Since(start).Seconds()})
	}
	return nil
}
