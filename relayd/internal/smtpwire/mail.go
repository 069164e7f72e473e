package smtpwire

import (
	"strconv"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

func appendNumber(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// mail begins a transaction.
func (c *Conn) mail(arg []byte) {
	const stage = reason.StageMail
	path, params, problem := parsePath(arg, "FROM:")
	switch {
	case c.session == nil:
		c.badSequence(stage, "say EHLO first")
		return
	case c.inMail:
		c.badSequence(stage, "MAIL within a message")
		return
	case problem != "":
		c.badSyntax(stage, problem)
		return
	}
	opts := &c.mailOptions
	*opts = smtp.MailOptions{}
	if slug, detail := c.mailParams(params, opts); slug != "" {
		c.refuse(Refusal{Stage: stage, Slug: slug, Args: reason.Args{Detail: detail}})
		return
	}
	if limit := c.server.config.MaxMessageBytes; limit > 0 && opts.Size > limit {
		c.refuse(Refusal{Stage: stage, Slug: reason.MessageTooLarge, Args: reason.Args{Limit: limit}})
		return
	}
	if err := c.session.Mail(path, opts); err != nil {
		c.inMail = c.fail(stage, err)
		return
	}
	c.inMail, c.nullSender = true, path == ""
	c.put(sayMail)
}

// rcpt adds a recipient.
func (c *Conn) rcpt(arg []byte) {
	const stage = reason.StageRcpt
	path, params, problem := parsePath(arg, "TO:")
	switch {
	case !c.inMail:
		c.badSequence(stage, "RCPT without MAIL")
		return
	case problem != "":
		c.badSyntax(stage, problem)
		return
	}
	c.asked = true
	opts := &c.rcptOptions
	*opts = smtp.RcptOptions{}
	if slug, detail := c.rcptParams(params, opts); slug != "" {
		c.refuse(Refusal{Stage: stage, Slug: slug, Args: reason.Args{Detail: detail}})
		return
	}
	if err := c.session.Rcpt(path, opts); err != nil {
		if c.fail(stage, err) {
			c.rcpts++
		}
		return
	}
	c.rcpts++
	c.put(sayRcpt)
}
