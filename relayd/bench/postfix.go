package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Postfix is an instance of the peer: configuration, queue and log in a directory of its own, tuned as a relay to one
// smarthost. It needs root, as Postfix's master does.
type Postfix struct {
	dir  string
	addr string
	pid  int
}

// StartPostfix starts an instance that relays everything to smarthost ("host:port"). dir must be short (Postfix's sockets
// lie below it), on the disk that is measured, and not there yet.
func StartPostfix(dir, smarthost string) (*Postfix, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, fmt.Errorf("start postfix: %w", err)
	}
	p := &Postfix{dir: dir, addr: addr}
	if err := p.configure(smarthost); err != nil {
		return nil, fmt.Errorf("configure postfix: %w", err)
	}
	if err := p.control("start"); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "queue/pid/master.pid"))
	if err == nil {
		p.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("process of postfix's master: %w", err), p.Stop())
	}
	return p, nil
}

// Addr is where it takes mail.
func (p *Postfix) Addr() string { return p.addr }

// Processes are master and all that it has started.
func (p *Postfix) Processes() Processes { return Processes{Root: p.pid} }

// Stop ends it; its files are the caller's to remove.
func (p *Postfix) Stop() error { return p.control("stop") }

func (p *Postfix) control(verb string) error {
	out, err := exec.Command("/usr/sbin/postfix", "-c", filepath.Join(p.dir, "etc"), verb).CombinedOutput()
	if err != nil {
		return fmt.Errorf("postfix %s: %w: %s", verb, err, out)
	}
	return nil
}

func (p *Postfix) configure(smarthost string) error {
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return err
	}
	for _, sub := range []string{"etc", "queue", "data", "log"} {
		if err := os.Mkdir(filepath.Join(p.dir, sub), 0o755); err != nil {
			return err
		}
	}
	for _, owned := range []string{"data", "log"} {
		if out, err := exec.Command("chown", "postfix", filepath.Join(p.dir, owned)).CombinedOutput(); err != nil {
			return fmt.Errorf("chown: %w: %s", err, out)
		}
	}
	host, port, err := net.SplitHostPort(smarthost)
	if err != nil {
		return err
	}
	_, listen, err := net.SplitHostPort(p.addr)
	if err != nil {
		return err
	}
	main := strings.NewReplacer("DIR", p.dir, "HOST", host, "PORT", port).Replace(postfixMain)
	if err := os.WriteFile(filepath.Join(p.dir, "etc/main.cf"), []byte(main), 0o644); err != nil {
		return err
	}
	master := strings.ReplaceAll(postfixMaster, "LISTEN", listen)
	return os.WriteFile(filepath.Join(p.dir, "etc/master.cf"), []byte(master), 0o644)
}

// postfixMain is the fastest of the settings that were tried: 100 processes, 20 connections to the smarthost, none of the
// limits and waits that protect a public server from strangers, no chroot, no DNS.
const postfixMain = `compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = DIR/log/mail.log
maillog_file_prefixes = DIR
myhostname = postfix.example
mydestination =
local_transport = error:no local mail
relayhost = [HOST]:PORT
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtpd_tls_security_level = none
smtp_tls_security_level = none
default_process_limit = 100
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
in_flow_delay = 0
`

const postfixMaster = `LISTEN inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// freeAddr is an address that was free a moment ago, for programs that cannot choose one and say which.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
