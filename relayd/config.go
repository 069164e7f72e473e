package relayd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"activerelay/api/client"
	"activerelay/api/mailaddr"
	"activerelay/api/setting"
	"activerelay/relayd/internal/deliver"
)

// defaultTLSMemory is a quarter: longer than the outages and holidays of most, shorter than for ever.
const defaultTLSMemory = 90 * 24 * time.Hour

// Config is everything that an edge is told from outside. See the usage of each flag for unit, default and zero meaning;
// start from [DefaultConfig]. The fields at the end are no settings of the user.
type Config struct {
	Server           string
	JoinToken        string
	CAFile           string
	Name             string
	Hostname         string
	DataDir          string
	Listen           string
	SubmissionListen string
	TLSListen        string
	TLSCert          string
	TLSKey           string
	AdminListen      string
	Resolvers        []string
	TrustResolvers   bool
	TLSMemory        time.Duration
	AllowPlainText   []string
	MXPort           uint16
	SourceAddresses  []string
	Clamd            string
	MaxConnections   int
	MaxPerAddress    int
	MaxPerPartner    int
	ProxyPeers       []string
	SpendAtOnce      bool
	LogLevel         string
	LogFormat        string
	CheckConfig      bool
	ShowVersion      bool

	// Version is what health replies and the control plane are told. Empty means "unversioned".
	Version string
	// Log gets the log. Nil discards it.
	Log *slog.Logger
	// MailLog gets the mail log, each line in one Write, in LogFormat. Nil discards it.
	MailLog io.Writer
	// Now is the clock of every decision and record. Nil means time.Now. Deadlines of connections keep to the real one.
	Now func() time.Time
	// Listening is told once mail is accepted, and where. Nil is told nothing.
	Listening func(Addresses)
}

// DefaultConfig is the configuration of a relayd that is told nothing.
func DefaultConfig() Config {
	var c Config
	newSettings(&c)
	return c
}

// newSettings defines the settings of relayd over c; the reference in the README is made from them.
func newSettings(c *Config) *setting.Set {
	set := setting.New("relayd", "RELAYD")
	f := set.Flags
	f.StringVar(&c.Server, "server", "http://127.0.0.1:8080", "`URL` of the control plane; https off loopback")
	f.StringVar(&c.JoinToken, "join-token", "", "one-time `token` by which this edge joins; needed only until it has joined, and better given as RELAYD_JOIN_TOKEN than as a flag")
	set.Secret("join-token")
	f.StringVar(&c.CAFile, "ca-file", "", "PEM `file` with the authorities that the control plane's certificate must come from; empty = the host's")
	f.StringVar(&c.Name, "name", "", "`name` of this edge in replies and reports; empty = the first label of the host's name")
	f.StringVar(&c.Hostname, "hostname", "", "`name` in the greeting, in EHLO and in Received; should resolve to this host; empty = the host's name")
	f.StringVar(&c.DataDir, "data-dir", "relayd-data", "`directory` of identity, policy, journal and spool; one edge each")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:2525", "`address` for mail servers that are allowed by address; STARTTLS and AUTH are offered with a certificate; empty = none")
	f.StringVar(&c.SubmissionListen, "submission-listen", "", "`address` for users: STARTTLS and AUTH required (RFC 6409); empty = none")
	f.StringVar(&c.TLSListen, "tls-listen", "", "`address` for users: TLS from the first byte, AUTH required (RFC 8314); empty = none")
	f.StringVar(&c.TLSCert, "tls-cert", "", "PEM `file` with the certificate chain of the SMTP listeners; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&c.AdminListen, "admin-listen", "127.0.0.1:8081", "`address` for /healthz, /readyz and /metrics; empty = none")
	f.StringSliceVar(&c.Resolvers, "resolver", nil, "DNS server as `host:port`, several with commas; empty = those of /etc/resolv.conf")
	f.BoolVar(&c.TrustResolvers, "trust-resolver", false, "believe a resolver beyond loopback too when it says that DNSSEC vouches for an answer, which DANE rests on; only where nobody else is on the path to it")
	f.DurationVar(&c.TLSMemory, "tls-memory", defaultTLSMemory, "for how long a destination that took TLS is not sent mail in plain text, by MX; 0 = do not remember")
	f.StringSliceVar(&c.AllowPlainText, "allow-plain-text", nil, "recipient `domains` that may be sent plain text though they took TLS before, several with commas")
	f.Uint16Var(&c.MXPort, "mx-port", 25, "`port` of the mail servers that MX records name; another than 25 is for tests")
	f.StringSliceVar(&c.SourceAddresses, "source-address", nil, "`address` that mail leaves from, one for IPv4 and one for IPv6; 192.0.2.25=out4.relay.example.com says hello by that name; empty = as the host chooses, by its own name")
	f.StringVar(&c.Clamd, "clamd", "", "clamd's socket, as unix:/path or `host:port`; empty = no scanner: mail is deferred unless the platform allows unscanned mail")
	f.IntVar(&c.MaxConnections, "max-connections", 2000, "SMTP `connections` at once over all listeners; more are answered 421")
	f.IntVar(&c.MaxPerAddress, "max-connections-per-address", 100, "SMTP `connections` at once from one client address; more are answered 421")
	f.IntVar(&c.MaxPerPartner, "max-connections-per-partner", 1000, "SMTP `connections` at once that relay for the domains of one partner; more are answered 421")
	f.StringSliceVar(&c.ProxyPeers, "proxy-peers", nil, "`addresses` or networks of load balancers that say who the client is by the PROXY protocol (version 1 or 2), several with commas; nobody else is believed; they must send the header on every connection to a mail port")
	f.BoolVar(&c.SpendAtOnce, "spend-before-contact", false, "spend leased quota after a reboot before the control plane was reached; only for hosts that are never rolled back to a snapshot")
	set.Choice(&c.LogLevel, "log-level", "info", []string{"debug", "info", "warn", "error"}, "least severe `level` that is logged")
	set.Choice(&c.LogFormat, "log-format", "text", []string{"text", "json"}, "`format` of the log on standard error")
	f.BoolVar(&c.CheckConfig, "check-config", false, "check the settings and end")
	f.BoolVar(&c.ShowVersion, "version", false, "print the version and end")
	return set
}

// Reference answers the reference of all settings as a Markdown table.
func Reference() string { return newSettings(&Config{}).Markdown() }

// complete fills in what was left open and checks what can be checked without starting.
func (c *Config) complete() error {
	if c.Version == "" {
		c.Version = "unversioned"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read host name: %w", err)
	}
	if c.Hostname == "" {
		c.Hostname = host
	}
	if c.Name == "" {
		c.Name, _, _ = strings.Cut(host, ".")
	}
	return errors.Join(
		c.checkServer(), c.checkNames(),
		c.checkListener("listen", c.Listen), c.checkListener("submission-listen", c.SubmissionListen),
		c.checkListener("tls-listen", c.TLSListen), c.checkListener("admin-listen", c.AdminListen),
		c.checkAnyListener(), c.checkTLS(), c.checkDNS(), c.checkSources(), c.checkTLSMemory(), c.checkClamd(),
		positive("max-connections", c.MaxConnections), positive("max-connections-per-address", c.MaxPerAddress),
		positive("max-connections-per-partner", c.MaxPerPartner), c.checkProxyPeers(),
	)
}

func (c *Config) checkListener(name, addr string) error {
	if addr == "" {
		return nil
	}
	return setting.CheckListen(name, addr)
}

// checkServer finds out before the first call what is wrong with the way to the control plane.
func (c *Config) checkServer() error {
	_, err := client.New(client.Config{URL: c.Server})
	if u, parsed := url.Parse(c.Server); err == nil && parsed == nil && u.Port() != "" {
		if _, wrong := strconv.ParseUint(u.Port(), 10, 16); wrong != nil {
			err = fmt.Errorf("control plane URL %q: %s is no port; want 1 to 65535", c.Server, u.Port())
		}
	}
	if err != nil {
		err = fmt.Errorf("server: %w", err)
	}
	_, authorities := c.authorities()
	return errors.Join(err, authorities)
}

// checkNames refuses a host name that no server would take in EHLO. One label is enough: that is what many hosts call
// themselves.
func (c *Config) checkNames() error {
	name := strings.TrimSuffix(c.Hostname, ".")
	canonical, err := mailaddr.ParseDomain(name)
	if err != nil && !strings.Contains(name, ".") {
		canonical, err = mailaddr.ParseDomain(name + ".example")
		canonical = strings.TrimSuffix(canonical, ".example")
	}
	if err != nil {
		return fmt.Errorf("hostname: %q is no host name; want e.g. edge1.relay.example.com", c.Hostname)
	}
	if !strings.EqualFold(canonical, name) { // an internationalised name goes over the wire as ASCII
		name = canonical
	}
	c.Hostname = name
	return nil
}

// checkAnyListener refuses an edge that nobody could hand mail to.
func (c *Config) checkAnyListener() error {
	if c.Listen == "" && c.SubmissionListen == "" && c.TLSListen == "" {
		return errors.New("listen, submission-listen and tls-listen are all empty; set one")
	}
	return nil
}

func (c *Config) checkTLS() error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("tls-cert and tls-key: one is useless without the other; set both")
	case c.TLSCert == "" && (c.SubmissionListen != "" || c.TLSListen != ""):
		return errors.New("submission-listen and tls-listen need a certificate; set tls-cert and tls-key")
	case c.TLSCert == "":
		return nil
	}
	_, err := serverTLS(*c)
	return err
}

func (c *Config) checkDNS() error {
	if c.MXPort == 0 {
		return errors.New("mx-port: 0 is no port; want 1 to 65535")
	}
	_, err := c.resolvers()
	return err
}

// resolvers are the name servers as addresses.
func (c *Config) resolvers() ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, r := range c.Resolvers {
		addr, err := netip.ParseAddrPort(r)
		if err != nil {
			return nil, fmt.Errorf("resolver: %q is no address and port; want e.g. 127.0.0.1:53", r)
		}
		all = append(all, addr)
	}
	return all, nil
}

// checkSources refuses addresses that mail could not leave from.
func (c *Config) checkSources() error {
	sources, err := c.sources()
	for _, s := range sources {
		if err == nil {
			err = s.Check(context.Background())
		}
	}
	if err != nil {
		err = fmt.Errorf("source-address: %w", err)
	}
	return err
}

// sources are the addresses that mail leaves from.
func (c *Config) sources() ([]deliver.Source, error) {
	var all []deliver.Source
	for _, text := range c.SourceAddresses {
		s, err := deliver.ParseSource(text)
		if err != nil {
			return nil, err
		}
		if s.Hostname != "" {
			if s.Hostname, err = mailaddr.ParseDomain(s.Hostname); err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func (c *Config) checkProxyPeers() error {
	_, err := c.proxyPeers()
	return err
}

// proxyPeers are the load balancers as networks.
func (c *Config) proxyPeers() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range c.ProxyPeers {
		network, err := netip.ParsePrefix(text)
		if at, single := netip.ParseAddr(text); single == nil {
			network, err = at.Unmap().Prefix(at.Unmap().BitLen())
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("proxy-peers: %q is no address or network; want e.g. 192.0.2.10 or 192.0.2.0/24", text)
		case network.Bits() == 0:
			return nil, fmt.Errorf("proxy-peers: %q would believe everybody; name the load balancers", text)
		case network != network.Masked():
			return nil, fmt.Errorf("proxy-peers: %q has bits beyond its length; want %s", text, network.Masked())
		}
		all = append(all, network)
	}
	return all, nil
}

// checkTLSMemory refuses what would mean something else than it says.
func (c *Config) checkTLSMemory() error {
	if c.TLSMemory < 0 {
		return fmt.Errorf("tls-memory: %s is in the past; want 0 or more", c.TLSMemory)
	}
	for i, domain := range c.AllowPlainText {
		canonical, err := mailaddr.ParseDomain(domain)
		if err != nil {
			return fmt.Errorf("allow-plain-text: %q is no domain: %w", domain, err)
		}
		c.AllowPlainText[i] = canonical
	}
	return nil
}

// allowsPlainText reports whether a destination may get plain text though it took TLS before.
func (c *Config) allowsPlainText(domain string) bool {
	return slices.Contains(c.AllowPlainText, domain)
}

func (c *Config) checkClamd() error {
	if c.Clamd == "" {
		return nil
	}
	if path, ok := strings.CutPrefix(c.Clamd, "unix:"); ok && path != "" {
		return nil
	}
	if setting.CheckListen("clamd", c.Clamd) != nil {
		return fmt.Errorf("clamd: %q is no address; want unix:/run/clamav/clamd.ctl or HOST:PORT", c.Clamd)
	}
	return nil
}

func positive(name string, n int) error {
	if n < 1 {
		return fmt.Errorf("%s: %d is too few; want at least 1", name, n)
	}
	return nil
}
