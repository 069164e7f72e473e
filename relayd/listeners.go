package relayd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"activerelay/api/keypair"
	"activerelay/relayd/internal/smtpd"
)

// Addresses are where an edge listens; empty where it does not.
type Addresses struct {
	Relay, Submission, TLS, Admin string
}

// ports are the bound listeners. They are bound before anything else happens on the network, so that an address in use is
// told before a join token is spent.
type ports struct {
	relay, submission, tls, admin net.Listener
}

func bind(ctx context.Context, c Config) (*ports, error) {
	p := &ports{}
	for _, one := range []struct {
		setting, addr string
		listener      *net.Listener
	}{
		{setting: "listen", addr: c.Listen, listener: &p.relay},
		{setting: "submission-listen", addr: c.SubmissionListen, listener: &p.submission},
		{setting: "tls-listen", addr: c.TLSListen, listener: &p.tls},
		{setting: "admin-listen", addr: c.AdminListen, listener: &p.admin},
	} {
		if one.addr == "" {
			continue
		}
		// Sessions have deadlines of their own, so the kernel need not probe.
		l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", one.addr)
		if err != nil {
			return nil, errors.Join(bindError(one.setting, one.addr, err), p.close())
		}
		*one.listener = l
	}
	return p, nil
}

// bindError says which setting is meant and what can be done.
func bindError(setting, addr string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "; end the program that listens there (ss -ltnp shows it), or choose another port"
	case errors.Is(err, syscall.EACCES):
		advice = "; a port below 1024 needs CAP_NET_BIND_SERVICE, which the unit file gives"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "; this host has no such address (ip address shows those it has)"
	}
	return fmt.Errorf("--%s %s: %w%s", setting, addr, err, advice)
}

// close closes what nobody has closed yet.
func (p *ports) close() error {
	var all error
	for _, l := range []net.Listener{p.relay, p.submission, p.tls, p.admin} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			all = errors.Join(all, err)
		}
	}
	return all
}

func (p *ports) addresses() Addresses {
	at := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	return Addresses{Relay: at(p.relay), Submission: at(p.submission), TLS: at(p.tls), Admin: at(p.admin)}
}

// takeMail are the addresses of the listeners for mail.
func (p *ports) takeMail() []netip.AddrPort {
	var all []netip.AddrPort
	for _, l := range []net.Listener{p.relay, p.submission, p.tls} {
		if l == nil {
			continue
		}
		if at, ok := l.Addr().(*net.TCPAddr); ok {
			all = append(all, at.AddrPort())
		}
	}
	return all
}

// serveMail accepts mail on every listener until the server is shut down.
func (p *ports) serveMail(intake *crew, server *smtpd.Server) {
	serve := func(l net.Listener, kind smtpd.Kind) {
		if l == nil {
			return
		}
		intake.start("smtp "+kind.String(), func(context.Context) error {
			if err := server.Serve(l, kind); !errors.Is(err, smtpd.ErrClosed) {
				return err
			}
			return nil
		})
	}
	serve(p.relay, smtpd.Relay)
	serve(p.submission, smtpd.Submission)
	serve(p.tls, smtpd.ImplicitTLS)
}

// serverTLS serves the certificate of the settings; nil when there is none.
func serverTLS(c Config) (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	files, err := keypair.Open(c.TLSCert, c.TLSKey, c.Log)
	if err != nil {
		return nil, fmt.Errorf("tls-cert and tls-key: %w", err)
	}
	return files.Config(), nil
}
