package smtpd

import (
	"bytes"
	"errors"
	"fmt"

	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

var _ smtp.AuthSession = (*session)(nil)

// AuthMechanisms implements smtp.AuthSession. The engine offers them only once
// there is TLS.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Auth implements smtp.AuthSession. The engine asks for nothing else than was
// offered, in capitals.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	if mechanism == sasl.Login {
		return &loginServer{session: s}, nil
	}
	return &plain{session: s}, nil
}

func (s *session) badAuth(detail string) error {
	return s.refuse(refusal{
		stage: reason.StageAuth, slug: reason.CommandSyntax, args: reason.Args{Detail: detail},
	})
}

// plain is the PLAIN mechanism (RFC 4616).
type plain struct {
	session *session
	asked   bool
}

// Next implements sasl.Server.
func (p *plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && !p.asked {
		p.asked = true
		return []byte{}, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, true, p.session.badAuth("not a PLAIN response")
	}
	return nil, true, p.session.authenticate(string(parts[0]), string(parts[1]), string(parts[2]))
}

// loginServer is the LOGIN mechanism, which old mail programs speak
// (draft-murchison-sasl-login).
type loginServer struct {
	session *session
	user    *string
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user = &user
		return []byte("Password:"), false, nil
	}
	return nil, true, l.session.authenticate("", *l.user, string(response))
}

// authenticate checks one login. The authorisation identity must be empty or
// the user itself: nobody acts for somebody else.
func (s *session) authenticate(identity, name, password string) error {
	view := s.server.View()
	user, err := mailaddr.Parse(name, mailaddr.Options{SMTPUTF8: true})
	if err != nil {
		user = mailaddr.Address{}
	}
	foreign := identity != "" && identity != name
	l := login{client: s.peer, user: user, password: password}
	domain, answer := (*policy.Domain)(nil), policy.No
	if !user.IsNull() {
		l.found, domain, answer = view.Table.User(user)
	}
	err = errUnreadable
	if answer != policy.Unknown { // otherwise there is nothing to check against, and nothing to count
		err = s.server.gate.check(s.conn.Context(), l)
	}
	if err == nil && foreign {
		err = errWrong
	}
	if err == nil {
		s.server.metrics.logins.WithLabelValues("right").Inc()
		s.user, s.userText, s.userDomain = user, user.String(), domain.Name
		return nil
	}
	slug, variant := authRefusal(err, view.Fresh())
	s.server.metrics.logins.WithLabelValues(loginOutcome(slug, variant)).Inc()
	if errors.Is(err, errWrong) {
		err = nil // the reply says it all
	}
	return s.refuse(refusal{
		stage: reason.StageAuth, slug: slug, cause: err, login: user.String(), domain: domain,
		args: reason.Args{Variant: variant, Revision: view.Table.Revision()},
	})
}

var errUnreadable = fmt.Errorf("%w: users of the domain cannot be read", errUncheckable)

// alarmOfGuessing tells the operator that somebody tries passwords, or has a program with an old one.
func (s *Server) alarmOfGuessing(who guessing) {
	if who.user.IsNull() {
		s.metrics.guessing.WithLabelValues("address").Inc()
		s.Log.Warn("an address guesses passwords", "client", who.client, "most_per_minute", s.limits.AuthFailuresPerMinute)
		return
	}
	s.metrics.guessing.WithLabelValues("user").Inc()
	s.Log.Warn("passwords of a user are guessed", "user", who.user.String(), "client", who.client,
		"most_per_minute", s.limits.AuthFailuresPerMinute)
}

func loginOutcome(slug reason.Slug, v reason.Variant) string {
	switch {
	case slug == reason.RateLimited:
		return "turned-away"
	case v == reason.BackendDown:
		return "unchecked"
	}
	return "wrong"
}
