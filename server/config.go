package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"activerelay/api/setting"
)

// Config is everything that a control plane is told from outside. See the usage of each flag for unit, default and zero
// meaning.
type Config struct {
	Listen            string
	AllowPlaintext    bool
	TLSCert           string
	TLSKey            string
	TrustedProxies    []string
	Database          string
	DataDir           string
	SecretsKeyFile    string
	MigrateAtStart    bool
	RequestsPerSecond float64
	LogLevel          string
	LogFormat         string
	CheckConfig       bool
	ShowVersion       bool

	// What follows is no setting: the program that embeds a control plane gives it.

	// Log takes what the control plane has to say. Required.
	Log *slog.Logger
	// Version is what health replies say.
	Version string
	// Now is the clock of everything that is stored or decided. Nil means time.Now.
	Now func() time.Time
	// Listening is told the address as soon as connections are accepted there. Nil is ignored.
	Listening func(net.Addr)
}

// newSettings defines the settings of relay-server over c; the reference in the README is made from them.
func newSettings(c *Config) *setting.Set {
	set := setting.New("relay-server", "RELAY_SERVER")
	f := set.Flags
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "`address` of the API, for partners, relayctl and edges")
	f.BoolVar(&c.AllowPlaintext, "allow-plaintext", false, "listen off loopback without TLS; only behind a proxy that speaks TLS, because tokens would be readable")
	f.StringVar(&c.TLSCert, "tls-cert", "", "PEM `file` with the certificate chain; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "PEM `file` with its key")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxies", nil, "`networks` of proxies whose X-Forwarded-For is believed, with commas; empty = none, the client is who connects")
	f.StringVar(&c.Database, "database", "sqlite:", "database `URL`: sqlite:PATH or postgres://…; sqlite: alone = relay.db in the data directory")
	set.Secret("database")
	f.StringVar(&c.DataDir, "data-dir", "relay-server-data", "`directory` of the SQLite database, the operator token and the secrets key")
	f.StringVar(&c.SecretsKeyFile, "secrets-key-file", "", "`file` with the installation's key for stored secrets, 32 bytes in base64, the same for all replicas of one database; empty = secrets.key in the data directory, made at the first start")
	f.BoolVar(&c.MigrateAtStart, "migrate", true, "bring the database to the schema of this program at start; false = refuse to start until relay-server migrate up has run")
	f.Float64Var(&c.RequestsPerSecond, "requests-per-second", 200, "`requests` a second that one token may make on average; six seconds' worth may come at once, and one address may make four times as many")
	set.Choice(&c.LogLevel, "log-level", "info", []string{"debug", "info", "warn", "error"}, "least severe `level` that is logged")
	set.Choice(&c.LogFormat, "log-format", "text", []string{"text", "json"}, "`format` of the log on standard error")
	f.BoolVar(&c.CheckConfig, "check-config", false, "check the settings and end")
	f.BoolVar(&c.ShowVersion, "version", false, "print the version and end")
	return set
}

// Reference answers the reference of all settings as a Markdown table.
func Reference() string { return newSettings(&Config{}).Markdown() }

// DefaultConfig is what relay-server runs with when nothing is set.
func DefaultConfig() Config {
	var c Config
	newSettings(&c)
	return c
}

// check finds what can be wrong without starting; it answers every mistake, not only the first.
func (c *Config) check() error {
	_, proxies := c.proxies()
	return errors.Join(c.checkListen(), c.checkTLS(), c.checkDatabase(), proxies, c.checkRate(), c.checkDataDir())
}

// checkFiles reads the files that serving needs. Who only migrates may do so without them.
func (c *Config) checkFiles() error {
	var mistakes []error
	if c.TLSCert != "" && c.TLSKey != "" {
		_, err := serverTLS(*c)
		mistakes = append(mistakes, err)
	}
	if c.SecretsKeyFile != "" {
		_, err := readSecretsKey(c.SecretsKeyFile)
		mistakes = append(mistakes, wrapUnlessNil("secrets-key-file", err))
	}
	return errors.Join(mistakes...)
}

func wrapUnlessNil(setting string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", setting, err)
}

// checkListen keeps tokens from crossing a network in the clear by accident. Who means it says so.
func (c *Config) checkListen() error {
	if err := setting.CheckListen("listen", c.Listen); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(c.Listen) // checked above
	switch {
	case c.TLSCert != "" || c.AllowPlaintext || loopback(host):
		return nil
	default:
		return fmt.Errorf("listen: %q is not a loopback address, and without TLS tokens would be readable on the network; "+
			"set tls-cert and tls-key, or allow-plaintext where a proxy in front speaks TLS", c.Listen)
	}
}

// loopback does not resolve names: what a name means may change after it was checked.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (c *Config) checkTLS() error {
	if (c.TLSCert == "") == (c.TLSKey == "") {
		return nil
	}
	return errors.New("tls-cert and tls-key: one is useless without the other; set both")
}

// checkDatabase does not repeat the URL, which may hold a password.
func (c *Config) checkDatabase() error {
	for _, scheme := range []string{"sqlite:", "postgres://", "postgresql://"} {
		if strings.HasPrefix(c.Database, scheme) {
			return nil
		}
	}
	return errors.New("database: want sqlite:PATH or postgres://USER@HOST/NAME")
}

func (c *Config) checkRate() error {
	if !(c.RequestsPerSecond > 0) { // NaN is not either
		return fmt.Errorf("requests-per-second: %v is too few; want more than 0", c.RequestsPerSecond)
	}
	return nil
}

func (c *Config) checkDataDir() error {
	if c.DataDir == "" {
		return errors.New("data-dir: is empty; want a directory")
	}
	return nil
}

// proxies reads the trusted networks; a single address is a network of one.
func (c *Config) proxies() ([]netip.Prefix, error) {
	var networks []netip.Prefix
	var mistakes []error
	for _, text := range c.TrustedProxies {
		network, err := netip.ParsePrefix(text)
		if addr, errAddr := netip.ParseAddr(text); errAddr == nil {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("trusted-proxies: %q is no network; want e.g. 10.1.0.0/16", text))
			continue
		}
		networks = append(networks, network.Masked())
	}
	return networks, errors.Join(mistakes...)
}
