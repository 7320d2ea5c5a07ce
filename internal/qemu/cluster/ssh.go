package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/kiln-os/kiln/internal/secret"
)

// Key is an SSH key pair made for one run.
type Key struct {
	signer ssh.Signer
	// Authorized is the public key as a line of authorized_keys, without newline.
	Authorized string
	// Private is the private key in OpenSSH's PEM form, for ssh -i.
	Private secret.Value
}

// NewKey makes an Ed25519 key pair.
func NewKey(comment string) (*Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("SSH key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		return nil, fmt.Errorf("SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return nil, fmt.Errorf("SSH key: %w", err)
	}
	pub := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return &Key{signer: signer, Authorized: pub + " " + comment, Private: secret.New(pem.EncodeToMemory(block))}, nil
}

// SSH runs commands on a node. The node makes its host key on its first boot,
// so the first key seen is trusted and any other one afterwards is an error.
type SSH struct {
	Port int // on 127.0.0.1
	User string
	Key  *Key

	mu      sync.Mutex
	hostKey []byte
}

// RemoteError says that a command ran on the node and failed.
type RemoteError struct {
	Command string
	Code    int // exit status, or -1 if it was ended by a signal
	Output  string
}

// Error implements error.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("on the node: %s: exit status %d: %s", e.Command, e.Code, e.Output)
}

func (s *SSH) checkHostKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hostKey == nil {
		s.hostKey = key.Marshal()
	}
	if !bytes.Equal(s.hostKey, key.Marshal()) {
		return errors.New("the node's SSH host key has changed since it was first seen")
	}
	return nil
}

// Run runs a shell command and returns its standard output. A command that
// fails gives a *RemoteError with its standard error, next to the output; any
// other error means that the node was not reached.
func (s *SSH) Run(ctx context.Context, command string) (string, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	if err != nil {
		return "", fmt.Errorf("ssh: %w", err)
	}
	defer conn.Close()
	// Everything below blocks on the connection; closing it ends that.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	reach := func(err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("ssh: %s: %w", command, err)
	}
	cc, chans, reqs, err := ssh.NewClientConn(conn, "node", &ssh.ClientConfig{
		User: s.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(s.Key.signer)}, HostKeyCallback: s.checkHostKey,
	})
	if err != nil {
		return "", reach(err)
	}
	client := ssh.NewClient(cc, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", reach(err)
	}
	defer session.Close()
	var stdout, stderr bytes.Buffer
	session.Stdout, session.Stderr = &stdout, &stderr
	err = session.Run(command)
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		code := exit.ExitStatus()
		if exit.Signal() != "" {
			code = -1
		}
		return stdout.String(), &RemoteError{Command: command, Code: code, Output: strings.TrimSpace(stderr.String())}
	case err != nil:
		return stdout.String(), reach(err)
	}
	return stdout.String(), nil
}

// Wait waits until a command can be run on the node.
func (s *SSH) Wait(ctx context.Context) error {
	for {
		// An emulated machine may take the connection long before it can answer.
		try, cancel := context.WithTimeout(ctx, time.Minute)
		_, err := s.Run(try, "true")
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no SSH login on the node: %w; last attempt: %w", context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}
