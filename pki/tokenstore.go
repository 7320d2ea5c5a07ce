package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/secret"
)

// tokensDir holds the tokens of single nodes, NODE.yaml, in the secrets folder.
const tokensDir = "tokens"

// tokenDocument is bootstrap-token.yaml, and each file of tokensDir.
type tokenDocument struct {
	Token   secret.Value `json:"token"`
	Created time.Time    `json:"created"`
}

// TokenFor returns the token with which a node joins: its own or the cluster's,
// whichever lives longer.
func (a *Authority) TokenFor(node string) Token {
	own, ok := a.NodeTokens[node]
	if !ok || !own.Expires.IsZero() && (a.Token.Expires.IsZero() || a.Token.Expires.After(own.Expires)) {
		return a.Token
	}
	return own
}

// StoreToken makes t the token of a cluster's secrets folder, or with a node's name
// the token of that node. The folder must have been made by LoadOrCreate. The token
// that was there is forgotten; a running cluster knows it until it expires.
func StoreToken(dir, node string, t Token) (err error) {
	if _, err := os.Stat(filepath.Join(dir, tokenFile)); err != nil {
		return fmt.Errorf("the cluster's secrets: %w", err)
	}
	s, err := openStore(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	name := tokenFile
	if node != "" {
		if node != filepath.Base(node) || strings.HasPrefix(node, ".") {
			return fmt.Errorf("%q is no name of a node", node)
		}
		if err := os.MkdirAll(s.path(tokensDir), 0o700); err != nil {
			return fmt.Errorf("secrets folder: %w", err)
		}
		name = path.Join(tokensDir, node+".yaml")
	}
	return s.writeToken(name, t)
}

func (s *store) writeToken(name string, t Token) error {
	of := "Bootstrap token of the cluster"
	if name != tokenFile {
		of = "Bootstrap token of node " + strings.TrimSuffix(path.Base(name), ".yaml")
	}
	text := fmt.Sprintf("# %s, and the time it was made; its life counts from then.\ntoken: %s\ncreated: %s\n",
		of, t.Value().RevealString(), t.Created.Format(time.RFC3339))
	return s.write(name, []byte(text))
}

// readToken reads a token; ok is false if there is none.
func (s *store) readToken(name string, ttl time.Duration) (t Token, ok bool, err error) {
	data, ok, err := s.readSecret(name)
	if err != nil || !ok {
		return Token{}, false, err
	}
	var doc tokenDocument
	if err := yaml.UnmarshalStrict(data.Reveal(), &doc); err != nil {
		// The decoder's error may quote the document.
		return Token{}, false, fmt.Errorf("%s: not a document with the keys token and created", s.path(name))
	}
	if t, err = ParseToken(doc.Token); err != nil {
		return Token{}, false, fmt.Errorf("%s: %w", s.path(name), err)
	}
	if doc.Created.IsZero() {
		return Token{}, false, fmt.Errorf("%s: the key created is missing", s.path(name))
	}
	return t.withLife(doc.Created, ttl), true, nil
}

func (s *store) loadOrCreateToken(a *Authority, o Options) error {
	t, have, err := s.readToken(tokenFile, o.TokenTTL)
	if err != nil {
		return err
	}
	if !have {
		if t, err = NewToken(o.Now, o.TokenTTL); err != nil {
			return err
		}
		if err := s.writeToken(tokenFile, t); err != nil {
			return err
		}
	}
	a.Token = t
	return s.loadNodeTokens(a, o)
}

func (s *store) loadNodeTokens(a *Authority, o Options) error {
	if err := checkPrivate(s.path(tokensDir), "700"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	entries, err := os.ReadDir(s.path(tokensDir))
	if err != nil {
		return fmt.Errorf("secrets folder: %w", err)
	}
	a.NodeTokens = map[string]Token{}
	for _, e := range entries {
		node, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok || strings.HasPrefix(node, ".") { // the temporary file of a process that was killed
			continue
		}
		t, _, err := s.readToken(path.Join(tokensDir, e.Name()), o.TokenTTL)
		if err != nil {
			return err
		}
		a.NodeTokens[node] = t
	}
	return nil
}
