"""What the office is made of: words, fields, tools, and the kinds of tasks."""

from dataclasses import dataclass

from jaxrl.envs.tools.tables import ANY, CREATE, DELETE, NONE, SEARCH, UPDATE
from jaxrl.text.tools import Parameter, Tool

SIZE = 24  # bytes of a field, S
FIRST = "Ann Ben Carl Dana Eve Finn Gina Hugo Ida Jack Kim Leo Mia Nina Omar Pia Quin Ron Sam Tom"
LAST = "bell cook diaz ford gray hill jones kaur lee moss nash park reed shaw todd wu"
SUBJECTS = (
    "budget invoice holiday contract parking canteen survey payroll security printer training "
    "visitors newsletter warranty shipping insurance"
)
BODIES = (
    "please reply today;see you there;it is all done;call me back;thank you;have a look;"
    "we need more time;the file is ready;sorry for the delay;any news on this;it went well;"
    "I will be late;ask the team;no change so far;let us talk;keep it short"
)
EVENTS = (
    "kickoff;standup;retro;planning;interview;demo;workshop;offsite;all hands;sync;budget talk;"
    "design call;lunch;board call;town hall;one on one"
)
TASKS = (
    "fix login;add search;write docs;update logo;test export;clean cache;plan sprint;ship beta;"
    "draft terms;review code;move data;check logs;sort bugs;train model;port tests;tune query"
)
COMPANIES = (
    "Acme;Borealis;Cobalt;Dynamo;Emerald;Fulcrum;Granite;Horizon;Indigo;Juniper;Kestrel;Lumen;"
    "Meridian;Nimbus;Orchard;Pinnacle"
)
STATUSES = ("Lead", "Qualified", "Proposal", "Won", "Lost")
LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
DURATIONS = ("15", "30", "45", "60", "90")
DOMAIN = "@atlas.com"

PEOPLE, EMAIL, EVENT, TASK, CUSTOMER = range(5)
FIELDS = (
    ("id", "name", "email_address"),
    ("email_id", "sender/recipient", "subject", "body"),
    ("event_id", "event_name", "participant_email", "event_start", "duration"),
    ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    ("customer_id", "customer_name", "assigned_to_email", "status"),
)
EXACT = ("status", "list_name", "board")  # fields in which upper and lower case differ
NUM_FIELDS = max(map(len, FIELDS))


@dataclass(frozen=True)
class Does:
    """A tool, and what it does to a table."""

    tool: Tool
    kind: int
    table: int
    field: tuple[int, ...]  # of each argument
    shown: tuple[int, ...] = (NONE, NONE, NONE)  # fields of the rows that a search tells


def _tool(name: str, description: str, *parameters: str, optional: bool = False) -> Tool:
    made = tuple(Parameter(p, size=SIZE, required=not optional) for p in parameters)
    return Tool(name, description, made)


CHANGE = ("field", "new_value")
OFFICE = (
    Does(
        _tool("company_directory_find_email_address", "Email addresses of people.", "name"),
        *(SEARCH, PEOPLE, (1,), (2, NONE, NONE)),
    ),
    Does(
        _tool("email_send_email", "Sends an email.", "recipient", "subject", "body"),
        *(CREATE, EMAIL, (1, 2, 3)),
    ),
    Does(
        _tool("email_delete_email", "Deletes an email.", "email_id"),
        *(DELETE, EMAIL, (NONE,)),
    ),
    Does(
        _tool(
            *("calendar_create_event", "Creates an event; start as YYYY-MM-DD HH:MM:SS, minutes."),
            *("event_name", "participant_email", "event_start", "duration"),
        ),
        *(CREATE, EVENT, (1, 2, 3, 4)),
    ),
    Does(
        _tool("email_search_emails", "Emails that hold a text.", "query"),
        *(SEARCH, EMAIL, (ANY,), (0, 1, 2)),
    ),
    Does(
        _tool("calendar_search_events", "Events that hold a text.", "query"),
        *(SEARCH, EVENT, (ANY,), (0, 1, 3)),
    ),
    Does(
        _tool("calendar_update_event", "Changes a field of an event.", "event_id", *CHANGE),
        *(UPDATE, EVENT, (NONE, NONE, NONE)),
    ),
    Does(
        _tool(
            *("project_management_search_tasks", "Tasks with these fields."),
            *("task_name", "assigned_to_email", "list_name"),
            optional=True,
        ),
        *(SEARCH, TASK, (1, 2, 3), (0, 1, 3)),
    ),
    Does(
        _tool("project_management_update_task", "Changes a field of a task.", "task_id", *CHANGE),
        *(UPDATE, TASK, (NONE, NONE, NONE)),
    ),
    Does(
        _tool(
            *("customer_relationship_manager_search_customers", "Customers by name."),
            "customer_name",
        ),
        *(SEARCH, CUSTOMER, (1,), (0, 1, 3)),
    ),
    Does(
        _tool(
            *("customer_relationship_manager_update_customer", "Changes a field of a customer."),
            *("customer_id", *CHANGE),
        ),
        *(UPDATE, CUSTOMER, (NONE, NONE, NONE)),
    ),
)
NAMES = [does.tool.name for does in OFFICE]
MOST_STEPS = 5
MOST_ARGUMENTS = max(len(does.tool.parameters) for does in OFFICE)

FIND, SEND, DROP, MEET, MAILS, DATES, MOVE, JOBS, ASSIGN, CLIENTS, DEAL = range(len(OFFICE))


@dataclass(frozen=True)
class Kind:
    """A kind of task: how it is told, and the calls that do it; names in braces are drawn."""

    terse: str
    words: str
    calls: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def needs(self) -> int:
        """The number of tools, counted from the first, that it needs."""
        return 1 + max(tool for tool, _ in self.calls)


_MAIL, _MEET = ("address", "subject", "body"), ("event", "address", "start", "duration")
_SAYS = "the subject '{subject}' and the body '{body}'"
_HOLDS = "'{event}' with {who} at {start} for {duration} minutes"
KINDS = (
    Kind(
        "mail {address}, {subject}: {body}",
        "Send an email to {address} with " + _SAYS + ".",
        ((SEND, _MAIL),),
    ),
    Kind("delete mail {email_id}", "Delete the email {email_id}.", ((DROP, ("email_id",)),)),
    Kind(
        "meet {address}, {event}, {start}, {duration}",
        "Create the event " + _HOLDS.replace("{who}", "{address}") + ".",
        ((MEET, _MEET),),
    ),
    Kind(
        "mail {name}, {subject}: {body}",
        "Send an email to {name} with " + _SAYS + ".",
        ((FIND, ("name",)), (SEND, _MAIL)),
    ),
    Kind(
        "meet {name}, {event}, {start}, {duration}",
        "Create the event " + _HOLDS.replace("{who}", "{name}") + ".",
        ((FIND, ("name",)), (MEET, _MEET)),
    ),
    Kind(
        "delete mail on {old_subject}",
        "Delete the email with the subject '{old_subject}'.",
        ((MAILS, ("old_subject",)), (DROP, ("email_id",))),
    ),
    Kind(
        "move {old_event} to {start}",
        "Move the event '{old_event}' to {start}.",
        ((DATES, ("old_event",)), (MOVE, ("event_id", "=event_start", "start"))),
    ),
    Kind(
        "{task}: list {list}",
        "Move the task '{task}' to the list '{list}'.",
        ((JOBS, ("task", "", "")), (ASSIGN, ("task_id", "=list_name", "list"))),
    ),
    Kind(
        "{company} is {status}",
        "Set the status of the customer {company} to '{status}'.",
        ((CLIENTS, ("company",)), (DEAL, ("customer_id", "=status", "status"))),
    ),
    Kind(
        "mail {name}, {subject}: {body}; meet, {event}, {start}, {duration}",
        "Send an email to {name} with " + _SAYS + ", and create the event "
        "'{event}' with the same person at {start} for {duration} minutes.",
        ((FIND, ("name",)), (SEND, _MAIL), (MEET, _MEET)),
    ),
    Kind(
        "all tasks of {name} to {name2}",
        "Reassign all tasks of {name} to {name2}.",
        (
            (FIND, ("name",)),
            (FIND, ("name2",)),
            (JOBS, ("", "address", "")),
            (ASSIGN, ("task_id", "=assigned_to_email", "address2")),
        ),
    ),
    Kind(
        "all tasks of {name} to {name2}",
        "Reassign all tasks of {name} to {name2}.",
        (
            (FIND, ("name",)),
            (FIND, ("name2",)),
            (JOBS, ("", "address", "")),
            (ASSIGN, ("task_id", "=assigned_to_email", "address2")),
            (ASSIGN, ("task_id2", "=assigned_to_email", "address2")),
        ),
    ),
)
