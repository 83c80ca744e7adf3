"""Reports the browser's measurements at the end of a run."""


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("passed"):
        if report.when == "call" and report.user_properties:
            measured = "; ".join(f"{name} {value}" for name, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid.partition('[')[2].removesuffix(']')}: {measured}")
