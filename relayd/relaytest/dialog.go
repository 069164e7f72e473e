package relaytest

import (
	"bytes"
	"encoding/base64"
	"net"
	"strings"
	"time"
)

// run is the conversation: greeting, then one command after another.
func (s *session) run() {
	if !s.act(Step{Stage: StageConnect}, Say("220 mx.test ESMTP")) {
		return
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mx.record(func() { s.mx.commands = append(s.mx.commands, line) })
		s.countPlain(line)
		if !s.command(line) {
			return
		}
	}
}

// countPlain counts what a command tells of a message to whoever listens in.
func (s *session) countPlain(line string) {
	if s.tls {
		return
	}
	switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
	case "MAIL", "RCPT", "DATA", "BDAT", "AUTH":
		s.mx.record(func() { s.mx.plain += len(line) })
	}
}

// command answers one line and reports whether the conversation goes on.
func (s *session) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	step := Step{Line: line}
	switch strings.ToUpper(verb) {
	case "EHLO":
		s.helo, s.mail, step.Stage = rest, nil, StageEHLO
		return s.act(step, Say(s.ehlo()...))
	case "HELO":
		s.helo, s.mail, step.Stage = rest, nil, StageHELO
		return s.act(step, Say("250 mx.test"))
	case "STARTTLS":
		step.Stage = StageStartTLS
		return s.act(step, Say("220 2.0.0 go ahead")) && (!s.politeAt(step) || s.startTLS() == nil)
	case "AUTH":
		step.Stage = StageAuth
		return s.act(step, s.auth(rest))
	case "MAIL":
		return s.mailFrom(step)
	case "RCPT":
		return s.rcptTo(step)
	case "DATA":
		return s.data(step)
	case "RSET":
		s.mail, step.Stage = nil, StageRset
		return s.act(step, Say("250 2.0.0 reset"))
	case "NOOP":
		step.Stage = StageNoop
		return s.act(step, Say("250 2.0.0 ok"))
	case "QUIT":
		step.Stage = StageQuit
		s.act(step, SayAndClose("221 2.0.0 bye"))
		return false
	}
	return s.write([]byte("500 5.5.2 unknown command\r\n"))
}

func (s *session) ehlo() []string {
	names := append([]string{"mx.test greets you"}, s.mx.script.Extensions...)
	if s.mx.script.TLS != nil && !s.tls {
		names = append(names, "STARTTLS")
	}
	lines := make([]string, len(names))
	for i, name := range names {
		sep := "-"
		if i == len(names)-1 {
			sep = " "
		}
		lines[i] = "250" + sep + name
	}
	return lines
}

// auth checks PLAIN and LOGIN against the script's only login.
func (s *session) auth(args string) Action {
	mechanism, initial, _ := strings.Cut(args, " ")
	var user, password string
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		if initial == "" {
			initial = s.ask("334 ")
		}
		parts := strings.Split(decode(initial), "\x00")
		if len(parts) != 3 {
			return Say("501 5.5.2 bad PLAIN")
		}
		user, password = parts[1], parts[2]
	case "LOGIN":
		user = decode(s.ask("334 VXNlcm5hbWU6"))
		password = decode(s.ask("334 UGFzc3dvcmQ6"))
	default:
		return Say("504 5.5.4 mechanism unknown")
	}
	if s.mx.script.Username == "" || user != s.mx.script.Username || password != s.mx.script.Password {
		return Say("535 5.7.8 bad login")
	}
	s.user = user
	return Say("235 2.7.0 welcome")
}

func (s *session) ask(prompt string) string {
	if !s.write([]byte(prompt + "\r\n")) {
		return ""
	}
	line, err := s.in.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimRight(line, "\r\n")
}

func decode(text string) string {
	out, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(out)
}

func (s *session) mailFrom(step Step) bool {
	address, params := path(step.Line)
	step.Stage, step.Address = StageMail, address
	action := s.choose(step, Say("250 2.1.0 ok"))
	if s.mail != nil {
		action = Say("503 5.5.1 nested MAIL")
	} else if action.positive() {
		s.mail = &Message{
			Connection: s.number, From: address, FromParams: params,
			TLS: s.tls, User: s.user, Helo: s.helo, Client: s.raw.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(),
		}
	}
	return s.perform(action)
}

func (s *session) rcptTo(step Step) bool {
	address, params := path(step.Line)
	step.Stage, step.Address = StageRcpt, address
	if s.mail == nil {
		return s.write([]byte("503 5.5.1 MAIL first\r\n"))
	}
	action := s.choose(step, Say("250 2.1.5 ok"))
	if action.positive() {
		s.mail.Recipients = append(s.mail.Recipients, Recipient{Address: address, Params: params})
	}
	return s.perform(action)
}

func (s *session) data(step Step) bool {
	step.Stage = StageData
	polite := Say("354 go ahead")
	if s.mail == nil || len(s.mail.Recipients) == 0 {
		polite = Say("554 5.5.1 no valid recipients")
	}
	action := s.choose(step, polite)
	if !s.perform(action) {
		return false
	}
	if !bytes.HasPrefix(action.raw, []byte("354")) {
		return true
	}
	wire, ok := s.readBody()
	if !ok {
		return false
	}
	if s.mail == nil {
		return s.write([]byte("554 5.5.1 no transaction\r\n"))
	}
	message := *s.mail
	s.mail = nil
	message.Wire, message.Body = wire, unstuff(wire)
	reply := s.choose(Step{Stage: StageBody}, Say("250 2.0.0 taken"))
	// A server that drops the connection here has taken the message all the
	// same: that is the case that makes duplicates.
	if reply.positive() || reply.ends && len(reply.raw) == 0 {
		s.mx.record(func() { s.mx.messages = append(s.mx.messages, message) })
	}
	return s.perform(reply)
}

// readBody returns the message as sent, up to and without the final dot.
func (s *session) readBody() (wire []byte, ok bool) {
	early := s.mx.script.EarlyBody
	for {
		line, err := s.in.ReadBytes('\n')
		if err != nil {
			return nil, false
		}
		if bytes.Equal(line, []byte(".\r\n")) && (len(wire) == 0 || bytes.HasSuffix(wire, []byte("\r\n"))) {
			return wire, true
		}
		wire = append(wire, line...)
		if !s.tls {
			s.mx.record(func() { s.mx.plain += len(line) })
		}
		if early != nil && len(wire) >= early.AfterBytes {
			if !s.perform(early.Action) {
				return nil, false
			}
			early = nil
		}
	}
}

// unstuff undoes RFC 5321 4.5.2.
func unstuff(wire []byte) []byte {
	out := make([]byte, 0, len(wire))
	for line := range bytes.Lines(wire) {
		if line[0] == '.' {
			line = line[1:]
		}
		out = append(out, line...)
	}
	return out
}

// path splits "MAIL FROM:<a@b> SIZE=1" into address and parameters.
func path(line string) (address, params string) {
	_, rest, _ := strings.Cut(line, "<")
	address, params, _ = strings.Cut(rest, ">")
	return address, strings.TrimSpace(params)
}

// politeAt reports whether the script leaves step to the polite server.
func (s *session) politeAt(step Step) bool {
	action := s.choose(step, Action{})
	return action.stalls()
}

// act chooses and performs.
func (s *session) act(step Step, polite Action) bool {
	return s.perform(s.choose(step, polite))
}

func (s *session) choose(step Step, polite Action) Action {
	step.Connection = s.number
	if s.mx.script.Decide != nil {
		if action, ok := s.mx.script.Decide(step); ok {
			return action
		}
	}
	if action, ok := s.mx.script.On[step.Stage]; ok {
		return action
	}
	return polite
}

// positive reports whether a accepts the command.
func (a Action) positive() bool { return bytes.HasPrefix(a.raw, []byte("2")) }

// perform does what a says and reports whether the conversation goes on.
func (s *session) perform(a Action) bool {
	switch {
	case a.stalls():
		return s.hold()
	case a.repeat:
		for s.write(a.raw) {
		}
		return false
	case a.every > 0:
		return s.drip(a)
	case len(a.raw) > 0 && !s.write(a.raw):
		return false
	case a.deaf:
		<-s.mx.done
		return false
	case a.reset:
		if tcp, ok := s.raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	return !a.ends
}

// hold keeps the connection open, reading and ignoring, until either side
// closes it.
func (s *session) hold() bool {
	buf := make([]byte, 4096)
	for {
		if _, err := s.in.Read(buf); err != nil {
			return false
		}
	}
}

func (s *session) drip(a Action) bool {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for i := range a.raw {
		select {
		case <-tick.C:
		case <-s.mx.done:
			return false
		}
		if !s.write(a.raw[i : i+1]) {
			return false
		}
	}
	return !a.ends
}

func (s *session) write(p []byte) bool {
	_, err := s.conn.Write(p)
	return err == nil
}
