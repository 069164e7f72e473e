package relayd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/feedback"
	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/relayd/internal/uplink"

	"github.com/prometheus/client_golang/prometheus"
)

// Join exchanges the join token for an identity in the data directory, and ends. An edge that has joined already is left
// as it is.
func Join(ctx context.Context, c Config) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	d, err := openDisk(c, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	p, err := meet(ctx, c, d)
	if err != nil {
		return err
	}
	defer p.close()
	c.Log.InfoContext(ctx, "joined", "edge", p.identity.Identity().EdgeID, "server", c.Server)
	return nil
}

// plane is the control plane as this edge may speak with it.
type plane struct {
	client   *client.ClientWithResponses
	identity *uplink.Store
	vault    *uplink.Vault
}

// meet reads who this edge is, or joins.
func meet(ctx context.Context, c Config, d *disk) (*plane, error) {
	p := &plane{}
	roots, err := c.authorities()
	if err != nil {
		return nil, err
	}
	p.client, err = client.New(client.Config{
		URL: c.Server, RootCAs: roots, UserAgent: fmt.Sprintf("relayd/%s capability/%d", c.Version, api.CapabilityVersion),
		Token: func() string {
			if p.identity == nil {
				return ""
			}
			return p.identity.Token()
		},
	})
	if err != nil {
		return nil, err
	}
	if p.identity, err = identify(ctx, c, p.client); err != nil {
		return nil, err
	}
	who := p.identity.Identity()
	if err := d.belongTo(who.EdgeID, max(1, who.Generation)); err != nil {
		return nil, err
	}
	p.vault = uplink.NewVault(p.client, d.journal, p.identity)
	return p, nil
}

// close lets go of the connections to the control plane.
func (p *plane) close() { client.CloseIdleConnections(p.client) }

func identify(ctx context.Context, c Config, api *client.ClientWithResponses) (*uplink.Store, error) {
	store, err := uplink.LoadIdentity(c.DataDir)
	if !errors.Is(err, uplink.ErrNotJoined) {
		return store, err
	}
	if c.JoinToken == "" {
		return nil, fmt.Errorf("%w; set RELAYD_JOIN_TOKEN to what `relayctl join-token create` prints", err)
	}
	store, err = uplink.JoinPatiently(ctx, uplink.JoinConfig{
		Dir: c.DataDir, Server: c.Server, Name: c.Name, JoinToken: c.JoinToken, Version: c.Version, Client: api, Now: c.Now,
	}, c.Log)
	switch {
	case unauthenticated(err):
		return nil, fmt.Errorf("%w; was the join token used, has it expired or been revoked? Make another: relayctl join-token create", err)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return nil, fmt.Errorf("%w; if that is the control plane, name its authority's certificate: --ca-file FILE", err)
	}
	return store, err
}

// strangerHint is what to do when the control plane does not take the credential of an edge that has joined.
const strangerHint = "this edge was retired, or its credential was replaced; join anew with a fresh data directory"

// unauthenticated reports whether the control plane did not take the token or credential of a call.
func unauthenticated(err error) bool {
	var refusal *problem.Problem
	return errors.As(err, &refusal) && refusal.Reason == reason.Unauthenticated
}

// authorities are the ones that the control plane's certificate must come from; nil means the host's.
func (c *Config) authorities() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca-file: %s holds no certificate in PEM form", c.CAFile)
	}
	return pool, nil
}

// feedbackKey answers the key that seals complaint tokens, from the disk, or from the control plane at the first start.
func (p *plane) feedbackKey(ctx context.Context, c Config) (key [feedback.KeyBytes]byte, err error) {
	plain, err := p.vault.SecretPatiently(ctx, uplink.FeedbackSecret, c.Log)
	if err != nil {
		return key, err
	}
	if len(plain) != len(key) {
		return key, fmt.Errorf("feedback key has %d bytes, want %d", len(plain), len(key))
	}
	return [feedback.KeyBytes]byte(plain), nil
}
